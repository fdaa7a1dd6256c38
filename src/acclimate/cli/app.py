"""All verbs, in the order in which they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from acclimate.cli import (
    adapt,
    bench,
    check,
    cite,
    compare,
    console,
    datasets,
    demo,
    diagnose,
    doctor,
    download,
    evaluate,
    export,
    fine_tune,
    import_,
    methods,
    networks,
    predict,
    report,
    study,
    translate,
    tune,
)

SECTIONS: dict[str, dict[str, Callable[..., None]]] = {
    "Work": {
        "demo": demo.demo,
        "check": check.check,
        "diagnose": diagnose.diagnose,
        "adapt": adapt.adapt,
        "tune": tune.tune,
        "compare": compare.compare,
        "evaluate": evaluate.evaluate,
        "fine-tune": fine_tune.fine_tune,
        "predict": predict.predict,
        "translate": translate.translate,
        "report": report.report,
        "study": study.study,
        "bench": bench.bench,
        "import": import_.import_,
        "export": export.export,
    },
    "Look up": {
        "methods": methods.methods,
        "networks": networks.networks,
        "datasets": datasets.datasets,
        "download": download.download,
        "cite": cite.cite,
        "doctor": doctor.doctor,
    },
}
EXAMPLES = {
    "demo": ("acclimate demo", "acclimate demo perlin --seeds 3", "acclimate demo --list"),
    "diagnose": (
        "acclimate diagnose simulated/ microscope/",
        "acclimate diagnose simulated/ microscope/ --model runs/simulated-to-microscope",
    ),
    "check": ("acclimate check simulated/ microscope/",),
    "adapt": (
        "acclimate adapt --source simulated/ --target microscope/",
        "acclimate adapt --source simulated/ --target microscope/ --method adabn --method dann --set dann.weight=0.5",
        "acclimate adapt --model runs/simulated-to-microscope --target other-microscope/",
    ),
    "compare": (
        "acclimate compare runs/simulated-to-microscope",
        "acclimate compare runs/simulated-to-microscope runs/other-settings --score dev",
        "acclimate compare runs/simulated-to-microscope --labels labelled/",
    ),
    "tune": (
        "acclimate tune --source simulated/ --target microscope/ --method dann",
        "acclimate tune --source simulated/ --target microscope/ --method dann --trials 40 --search lr=1e-3:1e-1:log "
        "--search dann.weight=0.1,0.3,1",
    ),
    "evaluate": (
        "acclimate evaluate runs/simulated-to-microscope labelled/",
        "acclimate evaluate runs/simulated-to-microscope labelled/ --map cell=nucleus --map dirt=ignore",
    ),
    "fine-tune": (
        "acclimate fine-tune runs/simulated-to-microscope --labelled labelled/",
        "acclimate fine-tune runs/simulated-to-microscope --labelled labelled/ --test other-labelled/ --k 5,20,50",
    ),
    "predict": (
        "acclimate predict runs/simulated-to-microscope new-images/ --out predictions/",
        "acclimate predict runs/simulated-to-microscope slides/ --out predictions/ --window 512 --scales 0.75,1,1.25 --flip",
    ),
    "translate": ("acclimate translate runs/simulated-to-microscope simulated/ --out simulated-in-microscope-look/",),
    "report": (
        "acclimate report runs/simulated-to-microscope",
        "acclimate report runs/simulated-to-microscope runs/other-settings --out runs/report",
        "acclimate report runs/bench-digits/cells/mnist-to-usps --out runs/report-usps",
    ),
    "study": ("acclimate study bn", "acclimate study dann", "acclimate study bn --size paper --seeds 3 --device cuda"),
    "bench": (
        "acclimate bench --list",
        "acclimate bench digits --tasks mnist-to-usps --methods source-only,adabn",
        "acclimate bench digits --preset paper --shard 1/4 --device cuda",
    ),
    "import": ("acclimate import weights.pt --network unet --classes background,cell --out models/mine",),
    "export": ("acclimate export runs/simulated-to-microscope --out model.onnx",),
    "methods": ("acclimate methods", "acclimate methods dann"),
    "networks": ("acclimate networks", "acclimate networks unet"),
    "datasets": ("acclimate datasets", "acclimate datasets mnist"),
    "download": ("acclimate download mnist",),
    "cite": ("acclimate cite dann > references.bib", "acclimate cite runs/simulated-to-microscope"),
    "doctor": ("acclimate doctor",),
}
INTERRUPTED = 130


class Verbs(TyperGroup):
    """The verbs under two headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(90)) for name in verbs])


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    context_settings=CONTEXT,
    epilog="Start with: acclimate demo",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Make a vision model work in the place where it will be used.

    Give it labelled images from one place and images without labels from another; it adapts a model, shows the
    evidence, and never looks at a target label unless you ask for a score.
    """
    if version:
        from acclimate import __version__

        console.show(f"acclimate {__version__}")
    elif context.invoked_subcommand is None:
        console.show(context.get_help())


for _verbs in SECTIONS.values():
    for _name, _function in _verbs.items():
        _lines = "\n".join(f"  {example}" for example in EXAMPLES[_name])
        app.command(_name, epilog=f"\b\nExamples:\n{_lines}", context_settings=CONTEXT)(_function)


def run(words: list[str]) -> int:
    """Parse and carry out; errors are raised."""
    group = typer.main.get_command(app)
    code = group.main(args=words, prog_name="acclimate", standalone_mode=False, obj=words)
    if code == INTERRUPTED:  # typer's reading of Ctrl-C
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0
