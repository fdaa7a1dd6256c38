"""From ``results.json`` and the evidence to the report's data: every number and every sentence of the page."""

from __future__ import annotations

import math
import pprint
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from acclimate.errors import DataError
from acclimate.experiment import BASELINE, COLLAPSE
from acclimate.experiment import SCHEMA as RESULTS_SCHEMA
from acclimate.files import read_json
from acclimate.report.evidence import FACTS
from acclimate.report.evidence import SCHEMA as EVIDENCE_SCHEMA
from acclimate.report.schema import (
    SCHEMA,
    Absent,
    Became,
    Confusion,
    Curve,
    Curves,
    DomainFacts,
    Embedding,
    Example,
    Examples,
    Generated,
    Line,
    PerClass,
    Player,
    Prediction,
    Report,
    Resolved,
    Role,
    Run,
    Score,
    Shares,
    StageEnd,
    Translated,
    Warned,
    check_version,
    listed,
)

WHOLE = 40  # characters of a word of a command up to which it stays on one line
NAMED = 4  # methods up to which a sentence names each
MASK_FACTS = ("mask_values", "masks_without_image")  # of a domain, said in words
RARE = 0.01  # share of source labels below which a class that is never predicted is no surprise
Facts = Mapping[str, Any]


def percent(value: float) -> str:
    """A share as "78.1"."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares as "+18.7" or "−2.0"."""
    return f"{100 * value:+.1f}".replace("-", "−")


def minutes(value: float) -> str:
    """Minutes as "2.4", "0.04" or "0.002"."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def duration(value: float) -> str:
    """Minutes as "2.4 min"; below two as seconds, "10 s" or "0.4 s"."""
    seconds = 60 * value
    return f"{value:.1f} min" if value >= 2 else f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"


def unmarked(text: str) -> str:
    """A docstring's or a card's words without the marks of its markup: :class:`GIM` and ``weight`` as GIM and weight."""
    return re.sub(r":[a-z]+:`~?([^`]*)`", lambda found: found[1].rpartition(".")[2], text).replace("``", "")


def words(command: str) -> list[tuple[str, bool]]:
    """A command's words and the spaces between them, and whether no line may end inside: after the hyphen of "--set"."""
    return [(word, "-" in word and len(word) <= WHOLE) for word in re.split(r"(\s+)", command) if word]


def unbroken(text: str) -> str:
    """A sentence in which no line ends between a number and its sign."""
    return text.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0")


def read(folder: Path) -> tuple[Facts, Facts]:
    """``results.json`` and ``evidence.json``.

    Raises :class:`DataError` if one is missing, damaged or of another schema version.
    """
    results, evidence = finite(read_json(folder / "results.json")), finite(read_json(folder / FACTS))
    check_version(results, folder / "results.json", "schema", RESULTS_SCHEMA)
    check_version(evidence, folder / FACTS, "schema", EVIDENCE_SCHEMA)
    if list(results["players"]) != [player["name"] for player in evidence["players"]]:
        raise DataError(f"{folder / FACTS} is of another run than results.json; repeat the run")
    return results, evidence


def compose(results: Facts, evidence: Facts, tensors: Mapping[str, Tensor], folder: Path, command: str) -> Report:
    """The report's data. ``tensors`` are those of the evidence.

    ``results`` are of one run, or of several as :mod:`acclimate.report.merge` puts them together: then each player has
    seeds, a ``baseline`` and an ``experiment`` of its own.
    """
    described = {player["name"]: player for player in evidence["players"]}
    found = [player_row(results, name, described[name]) for name in results["players"]]
    labels = {player.name: player.label for player in found}
    classes = list(results["classes"])
    left_out = list(results.get("left out", []))
    trained = [name for name in labels if any(facts["history"] for facts in per_seed(results, name))]
    shown = warned(results, found, evidence["source shares"])
    return Report(
        schema_version=SCHEMA,
        acclimate=results["acclimate"],
        title=f"{listed(origins(results))} → {results['experiment']['target']}",
        verdict=verdict(results, found, shown),
        advice=advice(results, found),
        next_command=next_command(results, folder),
        warnings=shown,
        task=results["task"],
        classes=classes,
        primary=results["primary"],
        scored=results["scored"],
        seeds=results["seeds"],
        players=found,
        examples=examples(evidence["examples"], classes, labels, results["scored"]),
        curves=[curves(results, player) for player in found if player.name in trained and player.name not in left_out],
        embeddings=embeddings(evidence["embeddings"], tensors, found, classes),
        pixels=pixels(evidence.get("pixels", {}), tensors, found, classes),
        generated=[generated(facts, tensors, classes, labels) for facts in evidence.get("generated", [])],
        translated=[translated(facts, labels) for facts in evidence.get("translated", [])],
        shares=shares(results, found, evidence["source shares"]),
        confusions=confusions(results, found),
        per_class=per_class(results, found),
        domains=domain_facts(results),
        settings=[
            resolved(described[player.name], per_seed(results, player.name)[0], experiment_of(results, player.name))
            for player in found
        ],
        versions=evidence["versions"],
        command=command,
        notes=notes(results, found),
        runs=[Run(**facts) for facts in results.get("runs", [])],
        absent=[Absent(**facts) for facts in results.get("absent", [])],
        left_out=left_out,
    )


def finite(value: Any) -> Any:
    """JSON without numbers that are not finite: None stands in their place."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def per_seed(results: Facts, name: str) -> list[Facts]:
    """A player's facts, in the order of its seeds."""
    return list(results["players"][name]["seeds"].values())


def seeds_of(results: Facts, name: str) -> list[int]:
    """A player's seeds: in several runs not all players have the same ones."""
    return [int(seed) for seed in results["players"][name]["seeds"]]


def baseline_of(results: Facts, name: str) -> str | None:
    """The source-only of a player's own run, where there is one."""
    entry = results["players"][name]
    return entry["baseline"] if "runs" in results else BASELINE


def experiment_of(results: Facts, name: str) -> Facts:
    """What a player is a part of."""
    found: Facts = results["players"][name].get("experiment") or results["experiment"]
    return found


def origins(results: Facts) -> list[str]:
    """The sources, or the models in their place."""
    experiments = [experiment_of(results, name) for name in results["players"]]
    return list(dict.fromkeys(str(each["source"] or each["model"]) for each in experiments))


def score(values: Iterable[float | None]) -> Score | None:
    """Mean and sample deviation of what is there; None where nothing is."""
    listed_ = list(values)
    known = [value for value in listed_ if value is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Score(mean=statistics.fmean(known), deviation=deviation, values=listed_)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is there."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


# -- players ----------------------------------------------------------------------------------------------------------


def player_row(results: Facts, name: str, described: Facts) -> Player:
    """One row of the table."""
    seeds, reference = per_seed(results, name), baseline_of(results, name)
    role: Role = "oracle" if results["players"][name]["oracle"] else "baseline" if name == reference else "method"
    before = results["players"][reference]["seeds"] if reference else {}
    target = values(seeds, "target_test") if results["scored"] else [None] * len(seeds)
    ends = [facts["target_test"]["interval"] for facts in seeds if results["scored"] and facts["target_test"]]
    low, high = (mean(end[side] for end in ends) for side in (0, 1))
    differences = []
    for seed, after in zip(results["players"][name]["seeds"], target):
        (earlier,) = values([before[seed]], "target_test") if seed in before else [None]
        differences.append(None if after is None or earlier is None else after - earlier)
    confidence = score(facts["mean confidence"] for facts in seeds)
    assert confidence is not None
    return Player(
        name=name,
        label=described["label"],
        title=results["players"][name]["title"],
        role=role,
        source_test=score(values(seeds, "source_test")),
        target_test=score(target),
        interval=None if low is None or high is None else (low, high),
        difference=None if role == "baseline" else score(differences),
        changed=seeds[0].get("changed"),
        confidence=confidence,
        minutes=statistics.fmean(facts["seconds"] for facts in seeds) / 60,
        reads=results["players"][name].get("reads"),  # results of earlier releases do not say
        seeds=seeds_of(results, name),
        baseline=None if role == "baseline" else reference,
    )


def values(seeds: Sequence[Facts], which: str) -> list[float | None]:
    """The primary score of every seed."""
    return [facts[which]["value"] if facts[which] else None for facts in seeds]


def unclear(player: Player) -> bool:
    """Whether seeds or the choice of test images could explain the difference from source-only."""
    difference = player.difference
    if difference is None or player.target_test is None:
        return False
    within_seeds = difference.deviation is not None and abs(difference.mean) <= 2 * difference.deviation
    before = (
        player.target_test.mean - difference.mean
    )  # source-only over the player's own seeds: it may have others too
    inside = player.interval is not None and player.interval[0] <= before <= player.interval[1]
    return within_seeds or inside


# -- sentences --------------------------------------------------------------------------------------------------------


def verdict(results: Facts, players: Sequence[Player], warned_: Sequence[Warned]) -> str:
    """One sentence in plain words."""
    methods = [player for player in players if player.role == "method"]
    baseline = players[0]
    if not results["scored"]:
        did = what_changed([player for player in methods if player.changed is not None])
        look = f"{len(warned_)} {'thing looks' if len(warned_) == 1 else 'things look'} suspicious (below)"
        return (
            "Without target labels no gain can be stated"
            + (f"; {did} predictions on the target" if did else "")
            + f", and {look if warned_ else 'nothing looks suspicious'}."
        )
    if not any(player.target_test for player in players):
        return "The target's test images hold nothing to score, so no gain can be stated."
    seeds = seeds_said(players)
    scored = [player for player in methods if player.target_test and player.difference and not player.reads]
    helped = [player for player in methods if player.target_test and player.difference and player.reads]
    name = results["primary"]
    before = percent(baseline.target_test.mean) if baseline.target_test else ""
    if any(player.baseline != baseline.name for player in methods) or baseline.role != "baseline" or not before:
        sentence = apart(results, players)
    elif not scored:
        sentence = f"On the target, source-only reaches {before} % {name}, {seeds}"
    elif len(scored) == 1:
        only = scored[0]
        sentence = (
            f"On the target, {only.label} reaches {with_deviation(only.target_test)} {name} "
            f"(source-only {before} %): {points(gain(only))} points, {seeds}"
        )
    elif len(scored) <= 3:
        each = [f"{p.label} {with_deviation(p.target_test)} ({points(gain(p))} points)" for p in scored]
        sentence = f"On the target, source-only reaches {before} % {name}, {listed(each)}, {seeds}"
    else:
        gains = sorted(gain(player) for player in scored)
        sentence = (
            f"On the target, source-only reaches {before} % {name}; {len(scored)} methods differ from it by "
            f"{points(gains[0])} to {points(gains[-1])} points, {seeds}"
        )
    if helped:
        each = [f"{p.label} reaches {with_deviation(p.target_test)} ({points(gain(p))} points)" for p in helped]
        sentence += f"; with few target labels, {listed(each)}"
    oracles = [player for player in players if player.role == "oracle" and player.target_test]
    known = [f"{percent(player.target_test.mean)} %" for player in oracles if player.target_test]
    if known:
        sentence += f"; trained on the target's labels the same network reaches {listed(known)} (oracle)"
    return f"{sentence}."


def apart(results: Facts, players: Sequence[Player]) -> str:
    """The scores of players that have no source-only in common, and the range of their gains."""
    blind = [player for player in players if player.role == "method" and player.target_test and not player.reads]
    before = [player for player in players if player.role == "baseline" and player.target_test]
    parts = []
    for several, what in ((before, f"{len(before)} models of source-only"), (blind, f"{len(blind)} methods")):
        scores = sorted((p.target_test.mean, p.label) for p in several if p.target_test)
        if len(scores) == 1:
            parts.append(f"{scores[0][1]} reaches {percent(scores[0][0])} %")
        elif scores:
            low, high = percent(scores[0][0]), percent(scores[-1][0])
            parts.append(f"{what} reach {low} to {high} % (highest: {scores[-1][1]})")
    primary = f"{results['primary'][0].upper()}{results['primary'][1:]}"
    sentence = f"{primary} on the target, {seeds_said(players)}: {listed(parts)}"
    gains = sorted((gain(player), player.label) for player in blind if player.difference)
    if len(gains) == 1:
        sentence += f"; {gains[0][1]} differs by {points(gains[0][0])} points from source-only of the same run and seed"
    elif gains:
        sentence += (
            f"; from source-only of the same run and seed methods differ by {points(gains[0][0])} to "
            f"{points(gains[-1][0])} points (most: {gains[-1][1]})"
        )
    return sentence


def what_changed(methods: Sequence[Player]) -> str:
    """How many of source-only's predictions each method changes; of many, from how many to how many."""
    whose = "source-only's" if len({player.baseline for player in methods}) <= 1 else "their own source-only's"
    if len(methods) <= NAMED:
        did = listed([f"{player.called} changes {percent(player.changed or 0)} %" for player in methods])
    else:
        shares = sorted(player.changed or 0 for player in methods)
        did = f"{len(methods)} methods change {percent(shares[0])} to {percent(shares[-1])} %"
    return f"{did} of {whose}" if did else ""


def seeds_said(players: Sequence[Player]) -> str:
    """How many seeds the players have."""
    counts = sorted({len(player.seeds) for player in players})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{many} seed{'' if counts[-1] == 1 else 's'}"


def with_deviation(value: Score | None) -> str:
    """A score as "78.1 % ± 0.6"."""
    assert value is not None
    return f"{percent(value.mean)} %" + ("" if value.deviation is None else f" ± {percent(value.deviation)}")


def gain(player: Player) -> float:
    """The mean difference from source-only."""
    assert player.difference is not None
    return player.difference.mean


def advice(results: Facts, players: Sequence[Player]) -> str | None:
    """What follows from the verdict, if anything does."""
    if not results["scored"]:
        if "runs" in results:
            return "A score that needs no target label ranks them:"
        return "Label a few dozen target images, chosen at random, and score every player on them:"
    methods = [player for player in players if player.role == "method" and player.difference]
    doubtful = [player.label for player in methods if unclear(player)]
    worse = [player.label for player in methods if player.label not in doubtful and gain(player) < 0]
    found = []
    if doubtful:
        verb = "gains or loses" if len(doubtful) == 1 else "gain or lose"
        found.append(
            f"What {listed(doubtful)} {verb} is no larger than seeds or the choice of test images can explain: "
            "do not count on it."
        )
    if worse:
        found.append(f"{listed(worse)} {'does' if len(worse) == 1 else 'do'} worse than source-only here.")
    if methods and all(len(player.seeds) == 1 for player in methods):
        found.append("One seed says nothing about how much seeds differ.")
    return " ".join(found) or None


def next_command(results: Facts, folder: Path) -> str | None:
    """What to type next where the target was not scored."""
    if results["scored"]:
        return None
    if "runs" in results:
        return shlex.join(["acclimate", "compare", *(run["folder"] for run in results["runs"])])
    return f"acclimate evaluate {shlex.quote(str(folder))} LABELLED"


def warned(results: Facts, players: Sequence[Player], source: Sequence[float] | None) -> list[Warned]:
    """What the run noticed, and classes that a player never predicts although the source has them."""
    texts: dict[tuple[str, str], list[int]] = {}
    for player in sorted(players, key=lambda player: ("method", "baseline", "oracle").index(player.role)):
        for seed, facts in zip(seeds_of(results, player.name), per_seed(results, player.name)):
            said = list(facts["warnings"])
            found = facts["predicted shares"]
            missing = [
                f"{name} ({percent(usual)} %)"
                for name, usual in zip(results["classes"], source or ())
                if usual > RARE
                and found[name] == 0
                and not any(text.startswith(f"{name!r} is predicted") for text in said)
            ]
            if missing and max(found.values()) <= COLLAPSE[results["task"]]:
                said.append(f"never predicted on the target: {listed(missing)}; in brackets the share of source labels")
            for text in said:
                texts.setdefault((player.name, text), []).append(seed)
    return [Warned(player=name, seeds=seeds, text=text) for (name, text), seeds in texts.items()]


def transductive(results: Facts) -> list[str]:
    """The players that were scored on the target images that they adapted to."""
    if "runs" in results:
        return list(results["transductive"])
    adapted, scored = (results["domains"].get(role) for role in ("target", "target_test"))
    same = results["experiment"].get("holdout") == 0 and adapted is not None and adapted == scored
    return list(results["players"]) if same else []


def protocol_said(results: Facts, players: Sequence[Player]) -> str:
    """Whether training saw the target's test images, of all players or of which."""
    seen = [player.label for player in players if player.name in transductive(results)]
    if not seen:
        return "Target test images took no part in training."
    which = "" if len(seen) == len(players) else f" of {listed(seen)}"
    others = "; those of all others took no part in training" if which else ""
    return (
        f"Target test images{which} are the very ones that were adapted to, without their labels: a transductive "
        f"protocol{others}."
    )


def notes(results: Facts, players: Sequence[Player]) -> list[str]:
    """How the numbers came about."""
    found = [
        "Every number belongs to the last training step: no checkpoint was picked.",
        f"In {'these runs' if 'runs' in results else 'this run'} no target label chose anything: not the checkpoint, "
        "nor the images, methods or order shown here.",
    ]
    if results["scored"]:
        found += [
            "± is the sample deviation over seeds. The interval is the 95 % bootstrap interval of the score over "
            "target test images; its ends are averaged over seeds. The difference is taken seed by seed"
            + (
                ", from the source-only of the same run; it is blank where that run has none of the same seed."
                if "runs" in results
                else "."
            ),
            protocol_said(results, players),
        ]
    if any(player.role == "method" and player.source_test for player in players):
        found.append(
            "Source test is scored with the model as it is used on the target. Where adaptation put the target's "
            "BatchNorm statistics in place, a fall there says little."
        )
    if any(player.role == "oracle" for player in players):
        names = listed([player.label for player in players if player.role == "oracle"])
        found.append(f"{names} is an oracle: it was trained on the labels of all target training images.")
    if helped := [player.label for player in players if player.reads]:
        count = results["domains"].get("labelled", {}).get("images", "a few")
        found.append(
            f"{listed(helped)} read the labels of {count} target images (few target labels): a gain over methods without "
            "that mark, which read none, is no merit of the method alone."
        )
    warm = [player.label for player in players if experiment_of(results, player.name).get("warm_start")]
    if len(warm) == len(players):
        found.append("Warm start: every method went on from source-only's network; the references began afresh.")
    elif warm:
        found.append(
            f"Warm start: of {listed(warm)}, every method went on from source-only's network; the references began afresh."
        )
    found += results.get("notes", [])
    found += [
        "Changed predictions, confidence and predicted class shares are taken on up to 1,000 target images.",
        "t-SNE places neighbours together; distances between groups and their sizes mean nothing. The linear probe is "
        "fitted to four fifths of the features and asked about the rest, five times. In adapted networks BatchNorm "
        "normalises each domain by statistics of its own; in source-only both by the source's.",
    ]
    return found


# -- figures ----------------------------------------------------------------------------------------------------------


def examples(facts: Facts, classes: Sequence[str], labels: Mapping[str, str], scored: bool) -> Examples:
    """Target images with every player's prediction."""
    items = []
    for item in facts["items"]:
        predictions = [
            Prediction(
                player=name,
                label=None if found["label"] is None else classes[found["label"]],
                confidence=found["confidence"],
                right=found["right"] if scored else None,
                changed=found["changed"],
            )
            for name, found in item["predictions"].items()
        ]
        truth = classes[item["truth"]] if scored and item["truth"] is not None else None
        said = "; ".join(f"{labels[p.player]} {spoken(p)}" for p in predictions)
        alt = f"Target image {Path(item['name']).name}. {said}." + (f" True label: {truth}." if truth else "")
        items.append(
            Example(name=item["name"], alt=alt, truth=truth, predictions=predictions, became=became(item.get("became")))
        )
    return Examples(
        compared=facts["compared"],
        reference=facts.get("reference", BASELINE),  # evidence of earlier releases does not say
        looked_at=facts["looked at"],
        changed=facts["changed"],
        items=items,
        became=became(facts.get("became")),
    )


def became(found: Facts | None) -> Became | None:
    """What became of the pixels that changed."""
    return None if found is None else Became(**found)


def spoken_became(found: Became, scored: bool) -> str:
    """The same in words, for the picture of the changed pixels."""
    shares = found.model_dump()
    if not scored:
        return f"{percent(sum(shares.values()))} % of the pixels changed class"
    said = [f"{percent(share)} % {in_words(name)}" for name, share in shares.items() if share]
    return f"{listed(said)} of all pixels" if said else "no pixel changed class"


def in_words(name: str) -> str:
    """The name of a change as a page says it: "newly wrong"."""
    return name.replace("_", " ")


def spoken(prediction: Prediction) -> str:
    """A prediction in words."""
    if prediction.label is not None:
        return f"says {prediction.label}, {percent(prediction.confidence)} % sure"
    parts = []
    if prediction.changed is not None:
        parts.append(f"changes {percent(prediction.changed)} % of the pixels")
    if prediction.right is not None:
        parts.append(f"is right in {percent(prediction.right)} %")
    return " and ".join(parts) or f"is {percent(prediction.confidence)} % sure"


def curves(results: Facts, player: Player) -> Curves:
    """Every loss term and metric over the steps of all stages."""
    ends: dict[str, int] = {}
    for row in per_seed(results, player.name)[0]["history"]:
        ends[row["stage"]] = row["step"]
    stages, offset, offsets = [], 0, {}
    for name, length in ends.items():
        offsets[name] = offset
        offset += length
        stages.append(StageEnd(name=name, end=offset))
    lines: dict[str, list[Line]] = {}
    for seed, facts in zip(seeds_of(results, player.name), per_seed(results, player.name)):
        courses: dict[str, tuple[list[int], list[float | None]]] = {}
        for row in facts["history"]:
            for term, value in row.items():
                if term not in ("stage", "step"):
                    steps, found = courses.setdefault(term, ([], []))
                    steps.append(offsets.get(row["stage"], 0) + row["step"])
                    found.append(value)
        for term, (steps, found) in courses.items():
            lines.setdefault(term, []).append(Line(seed=seed, steps=steps, values=found))
    panels = []
    for term, found_lines in sorted(lines.items(), key=lambda item: item[0] != "supervised"):
        first, last = (mean(line.values[at] for line in found_lines) for at in (0, -1))
        ends_at = " to ".join("undefined" if value is None else f"{value:.3g}" for value in (first, last))
        alt = f"{term} of {player.label} over {offset:,} steps, from {ends_at} (mean of {len(found_lines)} seeds)."
        panels.append(Curve(name=term, alt=alt.replace("of 1 seeds", "of 1 seed"), lines=found_lines, last=last))
    return Curves(player=player.name, stages=stages, panels=panels)


def embeddings(
    facts: Facts, tensors: Mapping[str, Tensor], players: Sequence[Player], classes: Sequence[str]
) -> list[Embedding]:
    """Each player's features in two dimensions."""
    domains = [name for name, count in facts["counts"].items() for _ in range(count)]
    found = []
    for player in players:
        if f"points/{player.name}" not in tensors:
            continue
        known = tensors.get(f"classes/{player.name}")
        separability = facts["separability"][player.name]
        told = ""
        if separability is not None:
            told = f" A linear probe names the domain of {percent(separability)} % of unseen images."
        counts = listed([f"{count} {name}" for name, count in facts["counts"].items()])
        found.append(
            Embedding(
                player=player.name,
                alt=f"t-SNE of {player.label}'s features of {counts} images.{told}",
                points=[(round(x, 4), round(y, 4)) for x, y in tensors[f"points/{player.name}"].tolist()],
                domains=domains,
                classes=None if known is None else [classes[k] if k >= 0 else None for k in known.tolist()],
                separability=separability,
            )
        )
    return found


def pixels(
    counts: Mapping[str, Mapping[str, int]],
    tensors: Mapping[str, Tensor],
    players: Sequence[Player],
    classes: Sequence[str],
) -> list[Embedding]:
    """Each player's features at single positions of segmented images, with their classes."""
    found = []
    for player in players:
        if player.name not in counts:
            continue
        said = listed([f"{count} {name}" for name, count in counts[player.name].items()])
        found.append(
            Embedding(
                player=player.name,
                alt=f"t-SNE of {player.label}'s features at {said} pixels.",
                points=[(round(x, 4), round(y, 4)) for x, y in tensors[f"pixels/{player.name}"].tolist()],
                domains=[name for name, count in counts[player.name].items() for _ in range(count)],
                classes=[classes[k] for k in tensors[f"pixel-classes/{player.name}"].tolist()],
                separability=None,
            )
        )
    return found


def translated(facts: Facts, labels: Mapping[str, str]) -> Translated:
    """Source images as a player redraws them."""
    names = [Path(name).name for name in facts["names"]]
    return Translated(
        player=facts["player"],
        alt=f"Source images {listed(names)}, each beside what {labels[facts['player']]} makes of it.",
        names=facts["names"],
        change=facts["change"],
    )


def generated(
    facts: Facts, tensors: Mapping[str, Tensor], classes: Sequence[str], labels: Mapping[str, str]
) -> Generated:
    """What a player draws, and how often the oracle sees in it what was asked for."""
    name, fidelity = facts["player"], facts["fidelity"]
    shown = [classes[k] for k in facts["classes"]]
    columns = tensors[f"generated/{name}"].shape[1]
    alt = f"Images that {labels[name]} draws, {columns} of each of these classes: {listed(shown)}."
    return Generated(
        player=name,
        alt=alt,
        classes=shown,
        columns=columns,
        oracle=facts["oracle"],
        fidelity=fidelity["share"] if fidelity else None,
        by_class=[fidelity["by_class"][k] for k in facts["classes"]] if fidelity else None,
        judged=fidelity["images"] if fidelity else None,
    )


def shares(results: Facts, players: Sequence[Player], source: list[float] | None) -> Shares:
    """How often each class is predicted on the target, beside what the labels say."""
    classes = results["classes"]
    predicted = {}
    for player in players:
        if player.role != "oracle":
            columns = [facts["predicted shares"] for facts in per_seed(results, player.name)]
            predicted[player.name] = [statistics.fmean(column[name] for column in columns) for name in classes]
    truth = None
    if results["scored"]:
        rows = [sum(row) for row in per_seed(results, players[0].name)[0]["target_test"]["confusion"]]
        truth = [row / max(1, sum(rows)) for row in rows]
    said = []
    for player in players:
        if player.name in predicted:
            share, name = max(zip(predicted[player.name], classes))
            said.append(f"{player.label} predicts {name} most often ({percent(share)} %)")
    alt = f"Predicted class shares on the target: {'; '.join(said)}."
    return Shares(alt=alt, source=source, truth=truth, players=predicted)


def confusions(results: Facts, players: Sequence[Player]) -> list[Confusion]:
    """Confusion matrices on the target's test images, all seeds together."""
    found = []
    for player in players:
        if not results["scored"] or player.role == "oracle":
            continue
        matrices = [facts["target_test"]["confusion"] for facts in per_seed(results, player.name)]
        counts = [[sum(cells) for cells in zip(*rows)] for rows in zip(*matrices)]
        portions = [[cell / sum(row) if sum(row) else None for cell in row] for row in counts]
        share, true, taken = max(
            (share or 0.0, true, taken)
            for true, row in zip(results["classes"], portions)
            for taken, share in zip(results["classes"], row)
            if true != taken
        )
        alt = (
            f"Confusion matrix of {player.label} on the target. Most frequent mistake: {true} taken for {taken} "
            f"({percent(share)} % of {true})."
        )
        found.append(Confusion(player=player.name, alt=alt, counts=counts, shares=portions))
    return found


def per_class(results: Facts, players: Sequence[Player]) -> PerClass | None:
    """Recall or IoU of every class on the target's test images."""
    if not results["scored"]:
        return None
    kind = "recall" if results["task"] == "classification" else "IoU"
    return PerClass(
        score=kind,
        players={
            player.name: [
                mean(facts["target_test"]["scores"][f"{kind} {name}"] for facts in per_seed(results, player.name))
                for name in results["classes"]
            ]
            for player in players
        },
    )


# -- settings ---------------------------------------------------------------------------------------------------------


def domain_facts(results: Facts) -> list[DomainFacts]:
    """The domains as they were used."""
    roles = {
        "source": "source",
        "source_test": "source test",
        "target": "target",
        "target_test": "target test",
        "labelled": "labelled target",
    }
    return [
        DomainFacts(
            role=roles[role],
            name=found["name"],
            images=found["images"],
            facts=flat({name: value for name, value in found["facts"].items() if name not in MASK_FACTS})
            | mask_facts(found["facts"]),
        )
        for role, found in results["domains"].items()
    ]


def mask_facts(facts: Facts) -> dict[str, Any]:
    """What the masks of a folder hold, in words."""
    table, said = facts.get("mask_values", {}), {}
    known, ignored = ([str(value) for value, label in table.items() if (label < 0) == left] for left in (False, True))
    if known:
        said["values of classes in masks"] = listed(known)
    if ignored:
        said["not scored"] = listed(ignored)
    if facts.get("masks_without_image"):
        said["masks without an image"] = facts["masks_without_image"]
    return said


def resolved(described: Facts, facts: Facts, experiment: Facts) -> Resolved:
    """All settings of a player, with dotted names, those of the experiment included, and what its method reports."""
    shared = {f"experiment.{name}": experiment[name] for name in ("labelled", "warm_start") if experiment.get(name)}
    return Resolved(
        player=described["name"],
        title=described["title"],
        paper=described["paper"],
        deviations=[unmarked(line) for line in described["deviations"]],
        settings=flat(described["settings"]) | shared,
        found=facts.get("report", []),
    )


def flat(value: Facts, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted names."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            found |= flat(inner, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = inner
    return found


def repeat_command(results: Facts, folder: Path) -> str:
    """Python that carries out the same experiment, for runs whose command line is not known."""
    given = {key: value for key, value in results["experiment"].items() if value not in (None, {}, [])}
    return (
        "from pathlib import Path\nfrom acclimate.experiment import Experiment, carry_out\n\n"
        f"experiment = {pprint.pformat(given, width=90, sort_dicts=False)}\n"
        f"carry_out(Experiment(**experiment), Path({str(folder)!r}), "
        f"seeds={results['seeds']!r}, score={results['scored']!r})"
    )


def short(name: str) -> str:
    """The last part of a path, for captions."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name
