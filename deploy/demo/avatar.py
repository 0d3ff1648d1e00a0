"""The demo's avatar: a drawn face, and the bundle of files that OpenTalking asks for.

What comes in: a size, a frame rate and a model name. What goes out: pictures of the face with the
mouth more or less open, and on disk `<dir>/<id>/{manifest.json,reference.png,preview.png}`. It must
not know of sessions, nor draw a barcode: OpenTalking shows the reference picture until somebody has
spoken, and that picture must not read as a frame number.

Runs inside the target's environments: it needs Pillow.
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw

BACKGROUND = (40, 70, 110)
SKIN = (235, 200, 170)
EYES = (20, 20, 20)
LIPS = (160, 40, 40)
SHIRT = (60, 130, 80)

# What every model of OpenTalking 0.1.0 takes in, whatever the manifest says.
SAMPLE_RATE = 16000


def draw_face(width: int, height: int, openness: float) -> Image.Image:
    """Return the face as an RGB picture; `openness` of the mouth runs from 0 (shut) to 1."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    canvas = ImageDraw.Draw(picture)

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
        return (left * width, top * height, right * width, bottom * height)

    canvas.rectangle(box(0.15, 0.68, 0.85, 1.0), fill=SHIRT)
    canvas.ellipse(box(0.25, 0.20, 0.75, 0.75), fill=SKIN)
    canvas.ellipse(box(0.38, 0.37, 0.44, 0.42), fill=EYES)
    canvas.ellipse(box(0.56, 0.37, 0.62, 0.42), fill=EYES)
    half_mouth = 0.01 + 0.05 * openness
    canvas.ellipse(box(0.41, 0.60 - half_mouth, 0.59, 0.60 + half_mouth), fill=LIPS)
    return picture


def write_bundle(
    directory: Path, avatar_id: str, *, model: str, width: int, height: int, fps: int
) -> Path:
    """Write the bundle of one avatar under `directory` and return its folder."""
    bundle = directory / avatar_id
    bundle.mkdir(parents=True, exist_ok=True)
    face = draw_face(width, height, openness=0.0)
    face.save(bundle / "reference.png")
    face.save(bundle / "preview.png")
    manifest = {
        "id": avatar_id,
        "name": avatar_id,
        "model_type": model,
        "fps": fps,
        "sample_rate": SAMPLE_RATE,
        "width": width,
        "height": height,
        "version": "1.0",
        "metadata": {},
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return bundle


def main() -> None:
    """Write a bundle from the command line."""
    parser = argparse.ArgumentParser(description="Write the demo avatar's bundle.")
    parser.add_argument("--dir", type=Path, required=True, help="folder that holds avatars")
    parser.add_argument("--id", default="talkscope-demo")
    parser.add_argument("--model", default="wav2lip")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--fps", type=int, default=25)
    options = parser.parse_args()
    print(
        write_bundle(
            options.dir,
            options.id,
            model=options.model,
            width=options.width,
            height=options.height,
            fps=options.fps,
        )
    )


if __name__ == "__main__":
    main()
