#!/usr/bin/env python3
"""Tests of `sbom.py`. `make sbom` runs them, and then writes the files twice and compares them."""

import pathlib
import sys
import unittest

# Nothing is left beside the sources.
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import sbom  # noqa: E402


def crate(name, needs=(), own=False, targets=sbom.TARGETS, checksum="0" * 64):
    return {
        "name": name, "version": "1.0.0", "own": own, "license": "MIT", "description": "what it is",
        "repository": None, "authors": [], "checksum": None if own else checksum,
        "targets": list(targets), "needs": [(need, "1.0.0") for need in needs],
    }


class Expressions(unittest.TestCase):
    def test_a_slash_is_an_or(self):
        for said, meant in [
            ("MIT", "MIT"),
            ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
            ("Apache-2.0 / MIT", "Apache-2.0 OR MIT"),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0"),
        ]:
            self.assertEqual(sbom.expression(said), meant)


class Trees(unittest.TestCase):
    def test_what_a_crate_needs_is_below_it(self):
        text = "0a v1.0.0 (/somewhere)\n1b v2.0.0\n2c v3.0.0+x\n1c v3.0.0+x\n1d v4.0.0 (*)\n"
        a, b, c, d = ("a", "1.0.0"), ("b", "2.0.0"), ("c", "3.0.0+x"), ("d", "4.0.0")
        self.assertEqual(sbom.tree(text), {a: {b, c, d}, b: {c}, c: set(), d: set()})

    def test_a_repetition_takes_nothing_away(self):
        text = "0a v1.0.0\n1b v1.0.0\n2c v1.0.0\n1d v1.0.0\n2b v1.0.0 (*)\n"
        self.assertEqual(sbom.tree(text)["b", "1.0.0"], {("c", "1.0.0")})

    def test_what_is_not_understood_is_an_error(self):
        with self.assertRaises(sbom.Problem):
            sbom.tree("a v1.0.0\n")


class Boms(unittest.TestCase):
    def test_a_build_number_is_escaped(self):
        self.assertEqual(sbom.purl("a", "1.0.0+b"), "pkg:cargo/a@1.0.0%2Bb")

    def test_the_program_is_not_one_of_its_parts(self):
        made = sbom.bom([crate("a"), crate("snapedge", ["a"], own=True)])
        self.assertEqual(made["metadata"]["component"]["type"], "application")
        self.assertEqual([part["name"] for part in made["components"]], ["a"])
        self.assertEqual(made["components"][0]["hashes"][0]["content"], "0" * 64)
        self.assertIn(
            {"ref": "pkg:cargo/snapedge@1.0.0", "dependsOn": ["pkg:cargo/a@1.0.0"]},
            made["dependencies"],
        )

    def test_the_number_follows_from_the_content(self):
        program = crate("snapedge", own=True)
        one, same, other = (
            sbom.bom([crate("a", checksum=sum), program])["serialNumber"] for sum in "112"
        )
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_what_only_one_processor_has_is_said(self):
        only = sbom.component(crate("a", targets=sbom.TARGETS[:1]))
        self.assertEqual([said["value"] for said in only["properties"]], [sbom.TARGETS[0]])
        self.assertNotIn("properties", sbom.component(crate("a")))

    def test_a_library_in_c_is_a_part_of_its_crate(self):
        parts = sbom.component(crate("zstd-sys"))["components"]
        self.assertEqual([part["name"] for part in parts], ["zstd"])


if __name__ == "__main__":
    unittest.main()
