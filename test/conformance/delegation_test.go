package main

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// edge is one delegation; paths empty stands for *.
type edge struct {
	from, to    string
	terminating bool
	paths       string
}

// draw makes delegations and publishes what they change.
func (s *story) draw(edges ...edge) {
	changed := []string{}
	for _, e := range edges {
		paths := []string{"*"}
		if e.paths != "" {
			paths = strings.Split(e.paths, " ")
		}
		s.delegate(e.from, e.to, e.terminating, paths...)
		for _, r := range []string{e.from, e.to} {
			if !slices.Contains(changed, r) {
				changed = append(changed, r)
			}
		}
	}
	s.publish(append(changed, "snapshot", "timestamp")...)
}

// visits demands the delegated roles asked for, in order.
func (s *story) visits(want string) {
	s.t.Helper()
	got := []string{}
	for _, a := range s.asked[min(4, len(s.asked)):] {
		got = append(got, strings.TrimSuffix(a, " 1"))
	}
	if strings.Join(got, " ") != want {
		s.t.Fatalf("visited %q, expected %q", got, want)
	}
}

func graphScenarios() (all []scenario) {
	for _, g := range []struct {
		id     string
		edges  []edge
		visits string
	}{
		{"basic-delegation", []edge{{from: "targets", to: "A"}}, "A"},
		{"single-level-delegations", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}}, "A B"},
		{"two-level-delegations", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}}, "A B C"},
		{"two-level-test-DFS-order-of-traversal", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C"}, {from: "A", to: "D"}}, "A C D B"},
		{"three-level-delegation-test-DFS-order-of-traversal", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C"}, {from: "C", to: "D"}}, "A C D B"},
		{"two-level-terminating-ignores-all-but-roles-descendants", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", terminating: true}, {from: "A", to: "D"}}, "A C"},
		{"three-level-terminating-ignores-all-but-roles-descendants", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", terminating: true}, {from: "C", to: "D"}}, "A C D"},
		{"two-level-ignores-all-branches-not-matching-paths", []edge{{from: "targets", to: "A", paths: "*.py"}, {from: "targets", to: "B"}, {from: "A", to: "C"}}, "B"},
		{"three-level-ignores-all-branches-not-matching-paths", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", paths: "*.py"}, {from: "C", to: "D"}}, "A B"},
		{"cyclic-graph", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "C", to: "D"}, {from: "D", to: "B"}}, "A B C D"},
		{"two-roles-delegating-to-a-third", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "A", to: "C"}}, "A C B"},
		{"two-roles-delegating-to-a-third-different-paths", []edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "A", to: "C", paths: "*.py"}}, "A B C"},
	} {
		all = append(all, scenario{"test_graph_traversal[" + g.id + "]", "a target that nobody signed is looked for in " + g.visits + ": 1", func(s *story) {
			s.init()
			s.draw(g.edges...)
			s.download(1, "missingpath")
			s.visits(g.visits)
		}})
	}
	return all
}

func searchScenarios() (all []scenario) {
	for _, f := range []struct {
		id, path, visits string
		found            bool
	}{
		{"no delegations", "targetfile", "", true},
		{"targetpath matches wildcard", "README.md", "A", true},
		{"targetpath with separators x", "releases/x/x_v1", "B C", true},
		{"targetpath with separators y", "releases/y/y_v1.zip", "B D", true},
		{"targetpath is not delegated by all roles in the chain", "releases/z/z_v1.zip", "B", false},
		{"wildcard does not match path separator", "releases/README.md", "", false},
		{"targetpath matches question mark wildcard", "foo-1.tgz", "A", true},
		{"targetpath does not match question mark wildcard", "foo-alpha.tgz", "", false},
		{"targetpath matching is case sensitive", "README.MD", "", false},
	} {
		end := map[bool]string{true: "0", false: "1"}[f.found]
		all = append(all, scenario{"test_targetfile_search[" + f.id + "]", f.path + " is looked for in targets " + f.visits + ": " + end, func(s *story) {
			s.init()
			for role, paths := range map[string][]string{
				"targets": {"targetfile"}, "A": {"README.md", "releases/README.md", "foo-1.tgz", "foo-alpha.tgz"},
				"C": {"releases/x/x_v1"}, "D": {"releases/y/y_v1.zip", "releases/z/z_v1.zip"},
			} {
				if s.docs[role] == nil {
					s.docs[role] = s.doc("targets", obj{"targets": obj{}})
				}
				for _, p := range paths {
					s.addTarget(role, p, p+" by "+role)
				}
			}
			s.draw(edge{from: "targets", to: "A", paths: "*.doc *.md foo-?.tgz"}, edge{from: "targets", to: "B", paths: "releases/*/*"},
				edge{from: "B", to: "C", paths: "releases/x/*"}, edge{from: "B", to: "D", paths: "releases/y/*.zip"})
			if f.found {
				s.download(0, f.path)
				s.has(string(s.files[f.path]))
			} else {
				s.download(1, f.path)
				s.has()
			}
			s.visits(f.visits)
		}})
	}
	return all
}

func delegationScenarios() []scenario {
	all := []scenario{
		{"test_cached_role_is_verified_against_current_delegator", "a role that one delegator vouches for is reached by another that does not: 1, with the first target", func(s *story) {
			s.init()
			s.addDiamond()
			s.download(1, "team-a/trusted_root.json", "team-b/trusted_root.json")
			s.has("trusted A")
		}},
		{"test_delegation_not_in_snapshot", "a delegated role is not listed in the snapshot: 1, and not asked for", func(s *story) {
			s.init()
			s.delegate("targets", "delegated", false, "delegatedpath/*")
			s.publish("delegated", "targets")
			delete(s.get("snapshot")["meta"].(obj), "delegated.json")
			s.publish("snapshot", "timestamp")
			s.refresh(0)
			s.asked = nil
			s.download(1, "delegatedpath/foo")
			s.requests("root 2", "timestamp")
			if s.version("delegated") != 0 {
				s.t.Error("delegated is trusted")
			}
		}},
	}
	for _, role := range []string{"?", "#", "/delegatedrole", "../delegatedrole"} {
		all = append(all, scenario{"test_unusual_role_name[" + role + "]", "a role has an unusual name, asked for and stored safely: 1", func(s *story) {
			s.init()
			s.delegate("targets", role, false, "*")
			s.publish(role, "targets", "snapshot", "timestamp")
			s.download(1, "nonexistent target")
			if !slices.Contains(s.asked, url.PathEscape(role)+" 1") {
				s.t.Errorf("asked for %q", s.asked)
			}
			files, err := filepath.Glob(filepath.Join(s.dir, "metadata", "*.json"))
			s.must(err)
			up, err := os.ReadDir(s.dir)
			s.must(err)
			if len(files) != 5 || len(up) != 3 {
				s.t.Errorf("stored %q in %v", files, up)
			}
		}})
	}
	return all
}

// addDiamond makes a role that two delegate to, each with a key of its own, and
// that only the first key signs.
func (s *story) addDiamond() {
	s.delegate("targets", "parent-a", false, "team-a/*")
	s.delegate("targets", "parent-b", false, "team-b/*")
	s.delegate("parent-a", "release", false, "team-a/*")
	first := s.signers["release"]
	s.delegate("parent-b", "release", false, "team-b/*")
	s.signers["release"] = first
	s.addTarget("release", "team-a/trusted_root.json", "trusted A")
	s.addTarget("release", "team-b/trusted_root.json", "malicious B")
	s.publish("release", "parent-a", "parent-b", "targets", "snapshot", "timestamp")
}
