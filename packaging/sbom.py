#!/usr/bin/env python3
"""Writes what a binary of snapedge is made of.

Two files: an SBOM in CycloneDX 1.5 (JSON), and the licences of all crates with their texts, which a
binary has to be accompanied by. Only what goes into the binary is in them, for either of the
processors that packages are made for: no build scripts, no macros, nothing of the tests.

`cargo tree` says which crates those are, with the features of the binary alone, `cargo metadata`
what they say of themselves, and `Cargo.lock` their checksums. Neither builds anything or needs a
network, once Cargo has fetched the crates. The files depend on nothing but the sources: no time, no
path, no order of a directory.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
import uuid

TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
# Files of a crate that say under which terms it is handed on.
NOTICES = re.compile(r"(?i)^(licen[cs]e|copying|copyright|notice|unlicense)([-._].*)?$")
# Crates that carry the sources of a library in C, which goes into the binary with them: its name,
# the file of its licence, and that licence; of zstd's two the one that a binary can be under.
BUNDLED = {
    "libz-ng-sys": ("zlib-ng", "src/zlib-ng/LICENSE.md", "Zlib"),
    "tikv-jemalloc-sys": ("jemalloc", "jemalloc/COPYING", "BSD-2-Clause"),
    "zstd-sys": ("zstd", "zstd/LICENSE", "BSD-3-Clause"),
}


class Problem(Exception):
    """What keeps the files from being right."""


def expression(said):
    """The licence of a crate as an SPDX expression; older crates write `/` for `OR`."""
    return re.sub(r"\s*/\s*", " OR ", said.strip())


def tree(text):
    """Reads `cargo tree --prefix depth`: each crate with what it needs, as `(name, version)`.

    What a crate needs is listed where it comes for the first time, and not again.
    """
    found, above = {}, []
    for line in filter(None, text.splitlines()):
        match = re.match(r"(\d+)(\S+) v(\S+)", line)
        if not match:
            raise Problem(f"cargo tree printed what this does not understand: {line}")
        depth, crate = int(match[1]), (match[2], match[3])
        del above[depth:]
        found.setdefault(crate, set())
        if above:
            found[above[-1]].add(crate)
        above.append(crate)
    return found


def cargo(program, root, *arguments):
    """Standard output of Cargo."""
    command = [*program, *arguments, "--locked", "--offline"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        failed = " ".join(command)
        raise Problem(f"`{failed}` failed; `cargo fetch --locked` brings crates that are missing")
    return done.stdout.decode()


def collect(program, root):
    """Each crate of the binary, in the order of names: what it is, needs, and is built for."""
    needs, built_for, known = {}, {}, {}
    for target in TARGETS:
        edges = ("--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "{p}")
        for crate, below in tree(cargo(program, root, "tree", *edges, "--target", target)).items():
            needs.setdefault(crate, set()).update(below)
            built_for.setdefault(crate, []).append(target)
        # Crates for other systems need not have been fetched.
        asked = ("metadata", "--format-version", "1", "--filter-platform", target)
        metadata = json.loads(cargo(program, root, *asked))
        for package in metadata["packages"]:
            known[package["name"], package["version"]] = package
    with open(root / "Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in locked}
    own = {package["id"] for package in known.values()} & set(metadata["workspace_members"])
    crates = []
    for crate in sorted(needs):
        package = known[crate]
        if package["id"] not in own and package["source"] != CRATES_IO:
            raise Problem(f"{crate[0]} comes from {package['source']}, and not from crates.io")
        if not package["license"]:
            raise Problem(f"{crate[0]} {crate[1]} does not say its licence")
        crates.append({
            "name": crate[0],
            "version": crate[1],
            "own": package["id"] in own,
            "license": expression(package["license"]),
            "description": " ".join((package["description"] or "").split()),
            "repository": package["repository"],
            "authors": package["authors"],
            "checksum": checksums[crate],
            "targets": built_for[crate],
            "needs": sorted(needs[crate]),
            "folder": pathlib.Path(package["manifest_path"]).parent,
        })
    return crates


def purl(name, version):
    """The name of a crate in all registries (https://github.com/package-url/purl-spec)."""
    return f"pkg:cargo/{name}@{version.replace('+', '%2B')}"


def component(crate):
    """A crate as CycloneDX has it."""
    reference = purl(crate["name"], crate["version"])
    made = {
        "type": "application" if crate["own"] else "library",
        "bom-ref": reference,
        "name": crate["name"],
        "version": crate["version"],
        "description": crate["description"],
        "licenses": [{"expression": crate["license"]}],
        "purl": reference,
    }
    if crate["checksum"]:
        made["hashes"] = [{"alg": "SHA-256", "content": crate["checksum"]}]
    if crate["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
    if crate["targets"] != list(TARGETS):
        made["properties"] = [
            {"name": "snapedge:target", "value": target} for target in crate["targets"]
        ]
    if crate["name"] in BUNDLED:
        name, _, terms = BUNDLED[crate["name"]]
        made["components"] = [{
            "type": "library",
            "bom-ref": f"{reference}#{name}",
            "name": name,
            "licenses": [{"expression": terms}],
            "scope": "required",
        }]
    return made


def bom(crates):
    """The whole SBOM."""
    own = [crate for crate in crates if crate["own"]]
    if len(own) != 1:
        raise Problem("there is one program in this package, and it is not what cargo tree lists")
    made = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(own[0])},
        "components": [component(crate) for crate in crates if not crate["own"]],
        "dependencies": [
            {
                "ref": purl(crate["name"], crate["version"]),
                "dependsOn": [purl(*below) for below in crate["needs"]],
            }
            for crate in crates
        ],
    }
    # The number follows from what is numbered.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(made, sort_keys=True))
    return {**made, "serialNumber": number.urn}


def notices(crate):
    """The texts of a crate's licences, each with the name of its file."""
    names = sorted(path.name for path in crate["folder"].iterdir() if NOTICES.match(path.name))
    if crate["name"] in BUNDLED:
        names.append(BUNDLED[crate["name"]][1])
    found = []
    for name in names:
        path = crate["folder"] / name
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [line.rstrip() for line in text.splitlines()]
            found.append((name, "\n".join(lines).strip("\n")))
        elif not path.is_dir():
            raise Problem(f"{crate['name']} {crate['version']} has no {name}")
    return found


def licences(crates):
    """The list of licences, and each text once, with the crates that it is of."""
    own = next(crate for crate in crates if crate["own"])
    others = [crate for crate in crates if not crate["own"]]
    texts, silent = {}, []
    for crate in others:
        told = notices(crate)
        for name, text in told:
            # Texts that differ in line breaks and blanks alone are one.
            _, whose = texts.setdefault("".join(text.split()), (text, []))
            whose.append(f"{crate['name']} {crate['version']}: {name}")
        if not told:
            silent.append(crate)
    rule = "=" * 100
    lines = [
        f"Crates in the binary of snapedge {own['version']}, itself under {own['license']}.",
        "",
    ]
    width = max(len(f"{crate['name']} {crate['version']}") for crate in others)
    for crate in others:
        told = f"{crate['name']} {crate['version']}"
        lines.append(f"{told:{width}}  {crate['license']}")
        if crate["name"] in BUNDLED:
            name, _, terms = BUNDLED[crate["name"]]
            lines.append(f"{'  with ' + name:{width}}  {terms}")
    lines += ["", "The texts that they come with, each once.", ""]
    # In the order of the first crate that has it, which is that of names.
    for text, whose in texts.values():
        lines += [rule, *whose, rule, "", text, ""]
    lines += [rule, "Crates without such a file, with the authors that they name.", rule, ""]
    for crate in silent:
        whose = ", ".join(crate["authors"]) or crate["repository"] or "not said"
        lines.append(f"{crate['name']} {crate['version']}, {crate['license']}: {whose}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cargo", default="cargo", help="the program to ask (cargo)")
    parser.add_argument("folder", type=pathlib.Path, help="where both files are written")
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    try:
        crates = collect(shlex.split(arguments.cargo), root)
        made = json.dumps(bom(crates), indent=2, ensure_ascii=False) + "\n"
        listed = licences(crates)
    except Problem as problem:
        print(f"sbom: {problem}", file=sys.stderr)
        return 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "snapedge.cdx.json").write_text(made, encoding="utf-8")
    (arguments.folder / "THIRD-PARTY.txt").write_text(listed, encoding="utf-8")
    print(f"{len(crates) - 1} crates in {arguments.folder}/snapedge.cdx.json and THIRD-PARTY.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
