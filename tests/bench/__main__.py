"""`python -m tests.bench [NAME]`: run all benchmarks, or one."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.bench import (
    accelerator_collect,
    bench_agent,
    bench_cost,
    bench_drift,
    bench_loadgen,
    compare_verdicts,
    exporter_events,
    exporter_load,
    loadgen_chromium,
    loadgen_knee,
    loadgen_onset,
    loadgen_selfcheck,
    report_million,
)
from tests.bench.measurement import Measurement
from tests.processes import ROOT

BENCHMARKS: dict[str, Callable[[], Measurement]] = {
    accelerator_collect.NAME: accelerator_collect.run,
    bench_agent.NAME: bench_agent.run,
    bench_cost.NAME: bench_cost.run,
    compare_verdicts.NAME: compare_verdicts.run,
    exporter_events.NAME: exporter_events.run,
    exporter_load.SCRAPE: exporter_load.scrape,
    exporter_load.RSS: exporter_load.rss,
    bench_loadgen.SESSIONS: bench_loadgen.sessions,
    bench_loadgen.RAMP: bench_loadgen.ramp,
    bench_loadgen.LOSS: bench_loadgen.loss,
    bench_loadgen.FLAT: bench_loadgen.flat,
    bench_loadgen.RSS: bench_loadgen.rss,
    bench_drift.NAME: bench_drift.run,
    loadgen_knee.MOCK: loadgen_knee.mock,
    loadgen_knee.WAV2LIP: loadgen_knee.wav2lip,
    loadgen_selfcheck.NAME: loadgen_selfcheck.run,
    loadgen_chromium.KEYFRAME: loadgen_chromium.keyframe,
    loadgen_chromium.FREEZES: loadgen_chromium.freezes,
    loadgen_onset.NAME: loadgen_onset.run,
    report_million.BUNDLE: report_million.bundle,
    report_million.WINDOW: report_million.window,
}


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            print(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
            return 64
    for name in names:
        print(f"== {name}", flush=True)
        measured = BENCHMARKS[name]()
        print(measured.table())
        print(f"written to {measured.write(ROOT / 'build' / 'bench')}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
