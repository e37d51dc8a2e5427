// Package arch holds the architecture test: which package may import which,
// and why not otherwise. docs/DESIGN.md draws the same arrows.
package arch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/droverhq/drover"

// rule says what a package (and what stands below it, with a trailing /...)
// may import of ours.
type rule struct {
	pkg   string
	allow []string // prefixes relative to the module
	why   string   // said when the rule is broken
}

// The first rule that fits a package counts.
var rules = []rule{
	{"agent/wire", []string{"infer"}, "the contract between device and cloud stands alone; it only needs the words of infer (a manifest carries a Spec)"},
	{"camera", nil, "a frame is a fact that everything else builds on"},
	{"camera/ipc", []string{"camera"}, "the socketpair carries bytes; the words of drover-camera need those of camera and nothing else"},
	{"camera/opencv", []string{"camera"}, "capturing knows frames and nothing of models or updates"},
	{"infer", nil, "what a classifier is depends on nothing"},
	{"infer/modelfile", []string{"infer"}, "a file format knows what a model is and nothing else"},
	{"infer/prep", []string{"camera", "infer"}, "preprocessing turns frames into tensors"},
	{"infer/tflite", []string{"infer", "infer/modelfile"}, "the runtime knows tensors, not frames, processes or releases"},
	{"infer/cage", nil, "locking a child up depends on nothing, so that both programs of the parent can do it first thing in main"},
	{"infer/host/protocol", []string{"infer"}, "the words between parent and child"},
	{"infer/host", []string{"camera", "camera/ipc", "infer", "infer/cage", "infer/host/protocol"}, "device and cloud start the same child; neither may leak in here"},
	{"ota/store", nil, "durable bytes know nothing of what they mean"},
	{"ota/anchor", nil, "a counter and a key know nothing of releases"},
	{"ota/trust/tufcore", nil, "what any TUF repository needs knows nothing of drover's policy"},
	{"ota/trust", []string{"agent/wire"}, "the verifier is shared by device, CLI and hub: it may depend on the contract alone"},
	{"ota/fetch", []string{"agent/wire"}, "fetching moves verified chunks, it decides nothing"},
	{"ota/bundle", []string{"agent/wire"}, "a file format says what is where; what it is worth is for ota/trust to say"},
	{"ota/delta", []string{"infer/modelfile"}, "a delta is arithmetic on model files"},
	{"ota", []string{"agent/wire", "infer", "ota/"}, "the update machine must not know the daemon around it: agent hands it what it needs"},
	{"agent/link", []string{"agent/wire"}, "a session carries bytes"},
	{"agent/inbox", []string{"agent/wire", "ota", "ota/bundle", "ota/fetch"}, "the inbox watches folders; the device that it serves judges"},
	{"agent/chunks", []string{"agent/link", "agent/wire"}, "asking for chunks needs the session and nothing of what the chunks are for"},
	{"agent/renew", []string{"agent/enroll", "agent/wire"}, "a certificate is renewed without knowing what runs under it"},
	{"agent/outbox", []string{"agent/wire"}, "a queue carries bytes"},
	{"agent/enroll", []string{"agent/wire"}, "enrolment is done before anything else of the device exists"},
	{"agent/config", []string{"agent/wire", "camera"}, "configuration is data"},
	{"agent/health", []string{"agent/wire"}, "judging a release needs numbers, not the things that made them"},
	{"agent/monitor", []string{"agent/wire", "infer"}, "statistics need results, not the things that made them"},
	{"agent/statuspage", []string{"agent/wire", "infer"}, "the page reads views; it must not be able to change anything"},
	{"agent/vision", []string{"agent/wire", "camera", "camera/ipc", "infer", "infer/cage", "infer/host", "infer/host/protocol", "ota"}, "vision runs children; it knows no broker and no signature"},
	{"agent", []string{"agent/", "camera", "camera/ipc", "infer", "infer/cage", "infer/host", "infer/host/protocol", "infer/modelfile", "ota", "ota/"}, "the device is pure Go: native code stands in the child programs only"},
	{"cloud/dataset", []string{"camera", "infer"}, "pictures and labels come first on the cloud side"},
	{"cloud/train", []string{"cloud/dataset", "infer", "infer/modelfile"}, "training looks left only: at data and the model format"},
	{"cloud/evaluate", []string{"camera", "cloud/dataset", "infer", "infer/host", "infer/host/protocol"}, "evaluation judges with the device's own runtime"},
	{"cloud/registry", []string{"agent/wire", "infer"}, "the catalogue stores what others made"},
	{"cloud/publish", []string{"agent/wire", "cloud/registry", "ota/trust"}, "publishing signs what is in the registry"},
	{"cloud/rollout", []string{"agent/wire"}, "a rollout decision is pure: observations in, waves out"},
	{"cloud/monitor", []string{"agent/wire", "cloud/registry"}, "reception writes down what devices report"},
	{"cloud/identity", []string{"agent/wire"}, "certificates are issued without knowing releases"},
	{"cloud/broker", []string{"agent/wire"}, "the broker authorises topics and knows nothing else"},
	{"cloud/blobserver", []string{"agent/wire"}, "serving ranges knows blobs and nothing of releases"},
	{"cloud/multicast", []string{"agent/wire"}, "serving chunks knows blobs and nothing of releases"},
	{"cloud", []string{"agent/wire", "camera", "cloud/", "infer", "infer/host", "infer/host/protocol", "infer/modelfile", "ota/bundle", "ota/trust", "ota/delta"}, "the hub must not contain device code"},
	{"cmd/", []string{""}, ""},
	{"test/", []string{""}, ""},
}

// Packages in which cgo is allowed, native dependencies included.
var native = []string{"camera/opencv", "infer/prep", "infer/tflite", "cmd/drover-camera", "cmd/drover-infer"}

type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	Name       string
	Imports    []string
	Deps       []string
	CgoFiles   []string
	GoFiles    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Name,Imports,Deps,CgoFiles,GoFiles", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages found: the test looks in the wrong place", len(all))
	}
	return all
}

func ours(path string) (string, bool) {
	return strings.CutPrefix(path, module+"/")
}

func ruleFor(path string) *rule {
	for i, r := range rules {
		if r.pkg == path || strings.HasSuffix(r.pkg, "/") && strings.HasPrefix(path, r.pkg) {
			return &rules[i]
		}
	}
	// A package nested in one with a rule (an internal room) follows it.
	if dir := filepath.Dir(path); dir != "." {
		return ruleFor(dir)
	}
	return nil
}

func allowed(r *rule, from, imp string) bool {
	if strings.HasPrefix(imp, from+"/") || strings.HasPrefix(from, imp+"/") && strings.Contains(from, "/internal/") {
		return r.pkg != "agent" && r.pkg != "cloud" && r.pkg != "ota" || slices.ContainsFunc(r.allow, func(a string) bool { return strings.HasSuffix(a, "/") && strings.HasPrefix(imp, a) })
	}
	return slices.ContainsFunc(r.allow, func(a string) bool {
		return a == "" || a == imp || strings.HasSuffix(a, "/") && strings.HasPrefix(imp, a)
	})
}

func TestArrows(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		from, ok := ours(p.ImportPath)
		if !ok {
			continue
		}
		r := ruleFor(from)
		if r == nil {
			t.Errorf("%s has no rule: say in test/arch and docs/DESIGN.md what it may import", from)
			continue
		}
		used[r.pkg] = true
		for _, imp := range p.Imports {
			if to, ok := ours(imp); ok && !allowed(r, from, to) {
				t.Errorf("%s imports %s: %s", from, to, r.why)
			}
		}
	}
	for _, r := range rules {
		if !used[r.pkg] {
			t.Logf("rule for %s is not used (yet)", r.pkg)
		}
	}
}

func TestNativeCodeStandsApart(t *testing.T) {
	all := list(t)
	cgo := map[string]bool{}
	for _, p := range all {
		if len(p.CgoFiles) > 0 {
			cgo[p.ImportPath] = true
		}
	}
	for _, p := range all {
		from, _ := ours(p.ImportPath)
		if slices.Contains(native, from) || strings.HasPrefix(from, "test/") {
			continue
		}
		if cgo[p.ImportPath] {
			t.Errorf("%s uses cgo: native code stands in %v only", from, native)
		}
		for _, dep := range p.Deps {
			if dep == "gocv.io/x/gocv" || dep == "github.com/tphakala/go-tflite" {
				t.Errorf("%s depends on %s: a fault there would end the program; only child programs may", from, dep)
			}
		}
	}
}

func TestPackagesExplainThemselves(t *testing.T) {
	for _, p := range list(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestMainsAreShort(t *testing.T) {
	for _, p := range list(t) {
		if p.Name != "main" {
			continue
		}
		file := filepath.Join(p.Dir, "main.go")
		n, err := mainLength(file)
		if err != nil {
			t.Errorf("%s: %v", p.ImportPath, err)
		}
		if n > 20 {
			t.Errorf("%s: func main has %d lines, at most 20: parse, wire, run", file, n)
		}
	}
}

func mainLength(file string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("a program's main stands in main.go: %w", err)
	}
	defer f.Close()
	n, in := 0, false
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "func main()") {
			in = true
		}
		if in {
			n++
		}
		if in && s.Text() == "}" {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s: no func main", file)
}
