package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// story is one scenario: a repository and a client that trusts its first root.
type story struct {
	*repository
	dir  string
	root []byte
	now  time.Time
}

func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{repository: newRepository(t), dir: t.TempDir(), now: time.Now()}
	for _, d := range []string{"metadata", "targets"} {
		s.must(os.Mkdir(filepath.Join(s.dir, d), 0o700))
	}
	s.root = s.signed["root"][0]
	return s
}

type talk struct{ t testing.TB }

func (w talk) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func (s *story) run(want int, args ...string) {
	s.t.Helper()
	args = append([]string{"--metadata-dir", filepath.Join(s.dir, "metadata"), "--metadata-url", s.url + "/metadata/"}, args...)
	got := run(context.Background(), args, func() time.Time { return s.now }, talk{s.t})
	if want >= 0 && got != want {
		s.t.Fatalf("%v: exit code %d, expected %d", args[4:], got, want)
	}
}

func (s *story) init() {
	s.t.Helper()
	file := filepath.Join(s.dir, "initial_root.json")
	s.must(os.WriteFile(file, s.root, 0o600))
	s.run(0, "init", file)
}

func (s *story) refresh(want int) { s.t.Helper(); s.run(want, "refresh") }

func (s *story) download(want int, targets ...string) {
	s.t.Helper()
	args := []string{"--target-dir", filepath.Join(s.dir, "targets"), "--target-base-url", s.url + "/targets/"}
	for _, n := range targets {
		args = append(args, "--target-name", n)
	}
	s.run(want, append(args, "download")...)
}

// version is what the client trusts of a role; 0 for nothing.
func (s *story) version(role string) int {
	b, err := os.ReadFile(filepath.Join(s.dir, "metadata", document(role)))
	if err != nil {
		return 0
	}
	var doc struct {
		Signed struct {
			Version int `json:"version"`
		} `json:"signed"`
	}
	s.must(json.Unmarshal(b, &doc))
	return doc.Signed.Version
}

// trusts demands the versions of root, timestamp, snapshot and targets.
func (s *story) trusts(root, timestamp, snapshot, targets int) {
	s.t.Helper()
	got := []int{s.version("root"), s.version("timestamp"), s.version("snapshot"), s.version("targets")}
	if want := []int{root, timestamp, snapshot, targets}; !slices.Equal(got, want) {
		s.t.Fatalf("trusts root, timestamp, snapshot, targets %v, expected %v", got, want)
	}
}

// requests demands exactly these requests for metadata since the last call.
func (s *story) requests(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.asked, want) {
		s.t.Fatalf("asked for %q, expected %q", s.asked, want)
	}
	s.asked = nil
}

// has demands the contents downloaded, in any order.
func (s *story) has(want ...string) {
	s.t.Helper()
	files, err := os.ReadDir(filepath.Join(s.dir, "targets"))
	s.must(err)
	got := []string{}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(s.dir, "targets", f.Name()))
		s.must(err)
		got = append(got, string(b))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Fatalf("downloaded %q, expected %q", got, want)
	}
}

// scenario is one line of README.md.
type scenario struct {
	name string // as the suite calls it
	what string // what happens, and the exit code expected of it
	do   func(s *story)
}

func play(t *testing.T, all []scenario) {
	for _, sc := range all {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			sc.do(newStory(t))
		})
	}
}

func every() []scenario {
	return slices.Concat(basicScenarios(), expiryScenarios(), downloadScenarios(), keyScenarios(), rollbackScenarios(),
		graphScenarios(), searchScenarios(), delegationScenarios(), rotationScenarios(), webScenarios())
}

// README.md says what is covered: exactly what runs.
func TestReadmeListsEveryScenario(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, sc := range every() {
		if seen[sc.name] {
			t.Errorf("scenario %s stands twice", sc.name)
		}
		seen[sc.name] = true
		if !strings.Contains(string(b), "| `"+sc.name+"` | "+sc.what+" |\n") {
			t.Errorf("README.md lacks\n| `%s` | %s |", sc.name, sc.what)
		}
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			if name, _, _ := strings.Cut(rest, "`"); !seen[name] {
				t.Errorf("README.md lists %s, which no test plays", name)
			}
		}
	}
	if len(seen) < 90 {
		t.Errorf("only %d scenarios", len(seen))
	}
}

func TestScenarios(t *testing.T) { play(t, every()) }
