"""The command `minicpmo`. Each subcommand imports what it needs, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minicpmo_ros.engines_cli import engines_app
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.model.cli import checkpoint_app
from minicpmo_ros.nano.cli import nano_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See, listen and speak at the same time: the MiniCPM-o stack for ROS 2.",
)
bag_app = typer.Typer(no_args_is_help=True, help="Make bags from other recordings.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure; ratios and percentiles.")
app.add_typer(bag_app, name="bag")
app.add_typer(bench_app, name="bench")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(engines_app, name="engines")
app.add_typer(nano_app, name="nano")

BagPath = Annotated[Path, typer.Argument(help="A rosbag2 folder or an .mcap file.")]
ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", help="YAML file with parameters.")
]
Params = Annotated[
    list[str],
    typer.Option("--param", "-p", help="A parameter of the omni node: brain:=local."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for bag, report and wav.")] = Path("out/demo"),
    open_report: Annotated[bool, typer.Option("--open", help="Open the report.")] = False,
    ros: Annotated[bool, typer.Option(help="Through the real nodes, or without ROS.")] = True,
    params_file: ParamsFile = None,
    param: Params = [],  # noqa: B006 - typer wants it so, and it is only read
) -> None:
    """Make a scene, replay it through the stack and show what it saw, heard, decided and said."""
    from minicpmo_ros.replay.demo import run_demo
    from minicpmo_ros.replay.parameters import omni_parameters

    run_demo(out, ros=ros, open_report=open_report, parameters=omni_parameters(params_file, param))


@app.command()
def live(
    record: Annotated[Path | None, typer.Option(help="Also record a bag here.")] = None,
    params_file: Annotated[Path | None, typer.Option(help="YAML file with parameters.")] = None,
) -> None:
    """Run the stack on this machine's camera, microphone and speaker."""
    from minicpmo_ros.replay.live import run_live

    run_live(record, params_file)


@app.command()
def devices() -> None:
    """List microphones, speakers and cameras."""
    from minicpmo_ros.replay.live import print_devices

    print_devices()


@app.command()
def replay(
    bag: BagPath,
    out: Annotated[Path | None, typer.Option(help="Bag to write.")] = None,
    ros: Annotated[bool, typer.Option("--ros", help="Through real nodes and /clock.")] = False,
    inputs: Annotated[bool, typer.Option(help="Copy the inputs into the new bag.")] = True,
    remap: Annotated[
        list[str], typer.Option(help="A topic of the bag for one of ours: /cam/image:=image_raw.")
    ] = [],  # noqa: B006 - typer wants it so, and it is only read
    namespace: Annotated[
        str | None,
        typer.Option(help="Where the bag's topics are; found by itself if there is one."),
    ] = None,
    params_file: ParamsFile = None,
    param: Params = [],  # noqa: B006 - as above
    force: Force = False,
) -> None:
    """Let the stack live through a recording again; the same bytes every time."""
    from minicpmo_ros.replay.parameters import omni_parameters
    from minicpmo_ros.replay.run import remapping, replay_bag

    replay_bag(
        bag,
        out or bag.with_name(bag.stem + "_replayed"),
        ros=ros,
        inputs=inputs,
        overwrite=force,
        remap=remapping(remap),
        namespace=namespace,
        parameters=omni_parameters(params_file, param),
    )


@app.command()
def record(
    out: Annotated[Path, typer.Argument(help="Bag to write.")],
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the stack.")] = "",
    force: Force = False,
) -> None:
    """Record the stack's topics to a bag, until Ctrl-C."""
    from minicpmo_ros.replay.record import record_bag

    record_bag(out, seconds=seconds, namespace=namespace, overwrite=force)


@app.command()
def report(
    bag: BagPath,
    html: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    png: Annotated[Path | None, typer.Option(help="Picture to write, too.")] = None,
) -> None:
    """Make one self-contained page of a bag: pictures, sound, decisions, speech, alerts."""
    from minicpmo_ros.replay.run import report_bag

    report_bag(bag, html or bag.with_name(bag.stem + ".html"), png)


@app.command()
def score(
    bag: BagPath,
    labels: Annotated[
        Path | None, typer.Option(help="JSON: who said what kind of thing, what happened.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    turns: Annotated[
        Path | None, typer.Option(help="Write ends of turns and interruptions here, as TurnBench.")
    ] = None,
    least: Annotated[
        int, typer.Option(min=1, help="Events below which a figure is not shown.")
    ] = 10,
) -> None:
    """How well the robot took turns, let itself be interrupted and reported what it should."""
    from minicpmo_ros.replay.score import score_bag

    score_bag(bag, labels=labels, figures=json, turns=turns, least=least)


@bag_app.command("from-video")
def from_video(
    media: Annotated[Path, typer.Argument(help="A video or sound file.")],
    out: Annotated[Path | None, typer.Option(help="Bag to write.")] = None,
    rate_hz: Annotated[float, typer.Option(help="Pictures a second.")] = 10.0,
    force: Force = False,
) -> None:
    """Turn any video or sound file into a bag: pictures at N Hz, 16 kHz sound."""
    from minicpmo_ros.replay.run import bag_from_file

    bag_from_file(media, out or media.with_suffix(""), rate_hz, force)


@bench_app.command("ros")
def bench_ros(
    seconds: Annotated[float, typer.Option(help="Length of the live measurement.")] = 60.0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    device: Annotated[
        bool, typer.Option("--device", help="Play on the sound device, not the clock sink.")
    ] = False,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Listen to the sound device, not a file.")
    ] = False,
    hour: Annotated[
        bool, typer.Option("--hour", help="Also replay an hour and watch the memory.")
    ] = False,
) -> None:
    """Latency, loss, processor share and replay speed of the nodes."""
    from minicpmo_ros.bench.ros import bench

    bench(seconds, json, device=device, microphone=microphone, hour=hour)


@app.command()
def parity(
    checkpoint: Annotated[Path, typer.Option(help="Directory in the published layout.")],
    golden: Annotated[Path, typer.Option(help="PREFIX of PREFIX.npz and PREFIX.json.")],
) -> None:
    """Hold the network and the conversation against what the reference computed."""
    from minicpmo_ros.model.cli import need_torch

    need_torch()
    from minicpmo_ros.model.shipped import checkpoint_directory
    from minicpmo_ros.parity.run import run_parity

    if not run_parity(checkpoint_directory(checkpoint), golden):
        raise typer.Exit(1)


@bench_app.command("model")
def bench_model(
    size: Annotated[
        list[str], typer.Option(help="tiny, quarter or full; may be given more than once.")
    ] = ["tiny", "quarter", "full"],  # noqa: B006 - as above
    units: Annotated[int, typer.Option(min=16, help="Units of one second at each size.")] = 40,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "bf16",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Of torch on a CPU; 0: one a core.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Time and memory of each stage of the network and of whole units, with random weights."""
    from minicpmo_ros.bench.model import bench

    bench(size, units, precision, device, threads, json)


@bench_app.command("engines")
def bench_engines(
    size: Annotated[str, typer.Option(help="tiny, quarter or full.")] = "full",
    units: Annotated[int, typer.Option(min=8, help="Units of the whole network.")] = 16,
    tokens: Annotated[int, typer.Option(min=512, help="Of context that they end with.")] = 4096,
    hours: Annotated[float, typer.Option(min=0.01, help="Of the long session.")] = 2.0,
    threads: Annotated[int, typer.Option(min=0, help="On a CPU; 0: one a core.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    recipe: Annotated[
        str, typer.Option(help="Any but cpu: the network that it builds, by itself.")
    ] = "cpu",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Directory; the recipe's network of it, by itself.")
    ] = None,
) -> None:
    """Stages from files against torch, llama.cpp and a read of their bytes; memory of it all."""
    from minicpmo_ros.model.cli import need_torch

    need_torch()
    if recipe == "cpu" and checkpoint is None:
        from minicpmo_ros.bench.engines import bench

        bench(size, units, tokens, hours, threads, json)
    else:
        from minicpmo_ros.bench import built
        from minicpmo_ros.model.shipped import checkpoint_directory

        directory = None if checkpoint is None else checkpoint_directory(checkpoint)
        built.bench(recipe, size, directory, threads, json)


@bench_app.command("speech")
def bench_speech(
    size: Annotated[str, typer.Option(help="tiny or full.")] = "full",
    steps: Annotated[
        list[int], typer.Option(help="Of the solver, 1 to 10; may be given more than once.")
    ] = [10, 5, 3],  # noqa: B006 - as above
    first: Annotated[
        list[int],
        typer.Option(help="Codes of the first chunk, 8, 12 or 25; may be given more than once."),
    ] = [8, 25],  # noqa: B006 - as above
    seconds: Annotated[int, typer.Option(min=3, help="Of speech in a turn.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each kind.")] = 2,
    threads: Annotated[int, typer.Option(min=0, help="On a CPU; 0: one a core.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Codes of speech to sound: real-time factor, time to the first sound, memory."""
    from minicpmo_ros.model.cli import need_torch

    need_torch()
    from minicpmo_ros.bench.speech import bench

    bench(size, steps, first, seconds, rounds, threads, json)


@app.command()
def params(
    yaml: Annotated[bool, typer.Option("--yaml", help="As config/omni.yaml.")] = False,
) -> None:
    """Print every parameter: as the README's table, or as a YAML file."""
    from minicpmo_ros.nodes import parameters

    typer.echo(parameters.yaml_text() if yaml else parameters.markdown(), nl=False)


@app.command()
def interfaces() -> None:
    """Print the page of topics, services, actions and their fields."""
    from minicpmo_ros.reference import interfaces_page
    from minicpmo_ros.replay.interfaces import interface_folder

    typer.echo(interfaces_page(interface_folder()), nl=False)


def main() -> None:
    """The command with our errors as one line instead of a traceback."""
    try:
        app()
    except MinicpmoError as error:
        typer.secho(f"minicpmo: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
