package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/test/programs"
	"github.com/droverhq/drover/test/tinymodel"
)

// built is drover-infer, made or found once for all tests.
var built struct {
	once   sync.Once
	dir    string
	remove func()
	err    error
}

func inferDir(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.remove, built.err = programs.Folder("drover-infer"); built.err == nil {
			built.dir, built.err = filepath.Abs(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func TestScripts(t *testing.T) {
	dir := inferDir(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			// The folder may hold a drover too; the one of the scripts is ours,
			// which stands in the first folder.
			ours, rest, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator))
			e.Setenv("PATH", strings.Join([]string{ours, dir, rest}, string(os.PathListSeparator)))
			e.Setenv("PROGRAMS", dir)
			e.Setenv("TMPDIR", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "json": cmdJSON, "tinymodel": cmdTinyModel, "pictures": cmdPictures, "other-pictures": cmdOtherPictures,
			"flip": cmdFlip, "cut": cmdCut, "await-published": cmdAwaitPublished, "device": cmdDevice, "keyid": cmdKeyID,
		},
	})
}

// cmdCode runs "code N drover …" and wants that exit code, and for a failure
// an error of one line, with at most one hint.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (interface{ ExitCode() int })(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, wanted %d; it said: %s", got, want, ts.ReadFile("stderr"))
	}
	if want == 0 {
		return
	}
	errorLines, hints := 0, 0
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		switch {
		case strings.HasPrefix(line, "error: "):
			errorLines++
		case strings.HasPrefix(line, "hint: "):
			hints++
		case strings.HasPrefix(line, "note: "), strings.HasPrefix(line, "time="):
		default:
			ts.Fatalf("a line that is no error, hint or note: %q", line)
		}
	}
	if errorLines != 1 || hints > 1 {
		ts.Fatalf("%d errors and %d hints: %s", errorLines, hints, ts.ReadFile("stderr"))
	}
}

// cmdJSON wants exactly one JSON value on standard output, and fields of it:
// json a.b=value, json a.b for any value but null.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	d.UseNumber()
	var v any
	ts.Check(d.Decode(&v))
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		ts.Fatalf("more than one JSON value")
	}
	for _, a := range args {
		path, want, exact := strings.Cut(a, "=")
		at := v
		for key := range strings.SplitSeq(path, ".") {
			switch x := at.(type) {
			case map[string]any:
				at = x[key]
			case []any:
				i, err := strconv.Atoi(key)
				ts.Check(err)
				if i >= len(x) {
					ts.Fatalf("%s: only %d elements", path, len(x))
				}
				at = x[i]
			default:
				at = nil
			}
		}
		if got := fmt.Sprint(at); at == nil || exact && got != want {
			ts.Fatalf("%s is %v, wanted %q", path, at, want)
		}
	}
}

// cmdTinyModel writes a classifier of dark and bright pictures.
func cmdTinyModel(ts *testscript.TestScript, neg bool, args []string) {
	b, _ := tinymodel.Build(tinymodel.Options{Name: args[0], Swapped: neg})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// cmdPictures makes a folder per class, dark and bright, of n pictures each.
func cmdPictures(ts *testscript.TestScript, neg bool, args []string) { makePictures(ts, args, 0) }

// cmdOtherPictures makes some that no set of cmdPictures has.
func cmdOtherPictures(ts *testscript.TestScript, neg bool, args []string) { makePictures(ts, args, 5) }

func makePictures(ts *testscript.TestScript, args []string, shift int) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for class, base := range map[string]int{"dark": 5 + shift, "bright": 180 + shift} {
		dir := filepath.Join(ts.MkAbs(args[0]), class)
		ts.Check(os.MkdirAll(dir, 0o755))
		for i := range n {
			img := image.NewNRGBA(image.Rect(0, 0, 16, 16))
			for p := range 16 * 16 {
				v := uint8(base + (p*7+i*13)%60)
				img.Set(p%16, p/16, color.NRGBA{v, v, uint8(base + i%60), 255})
			}
			f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%03d.png", i)))
			ts.Check(err)
			ts.Check(png.Encode(f, img))
			ts.Check(f.Close())
		}
	}
}

// cmdFlip changes one bit of a file, at a share of its length: flip FILE 0.5.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	at, err := strconv.ParseFloat(args[1], 64)
	ts.Check(err)
	b[int(at*float64(len(b)))] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// cmdCut writes the first n bytes of a file to another: cut FROM N TO.
func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(ts.ReadFile(args[0])[:n]), 0o644))
}

// cmdAwaitPublished waits until a running hub has published a manifest.
func cmdAwaitPublished(ts *testscript.TestScript, neg bool, args []string) {
	manifest := []byte(ts.ReadFile(args[1]))
	f, err := cloud.Open(context.Background(), ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		v, err := f.Verify(context.Background(), manifest, time.Now())
		ts.Check(err)
		if last := v.Links[len(v.Links)-1]; strings.HasPrefix(last.Detail, "the device's verifier takes") {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the hub has not published within 30 s")
		}
	}
}

// cmdDevice enrols a device in the registry, as the enrolment service would,
// with a report: device FLEET NAME [k=v].
func cmdDevice(ts *testscript.TestScript, neg bool, args []string) {
	f, err := cloud.Open(context.Background(), ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	d := registry.Device{ID: args[1], Shard: wire.Shard(args[1]), Cert: registry.Cert{Serial: "1f", Expiry: time.Now().Add(time.Hour)}}
	ts.Check(f.Registry.UpsertDevice(context.Background(), d))
	if len(args) < 3 {
		return
	}
	k, v, _ := strings.Cut(args[2], "=")
	s := wire.State{
		Header: wire.Header{V: wire.Version, Boot: "b1", Seq: 1}, Agent: "devel", Arch: "arm64", Labels: map[string]string{k: v},
		Active:  &wire.ReleaseRef{Path: "release/tiny/1", Digest: strings.Repeat("ab", 32)},
		Update:  wire.UpdateStatus{State: wire.Idle, Outcome: wire.Refused, Reason: wire.ReasonGolden, Release: "release/tiny/2", Message: "golden input 0 differs"},
		Cameras: []wire.CameraState{{Name: "front", State: "running", FPS: 29.9, Width: 640, Height: 480}},
		Healthy: true, Assurance: "software", Freshness: "current", Root: 1,
	}
	_, err = f.Registry.RecordState(context.Background(), args[1], "b1", 1, wire.Encode(s))
	ts.Check(err)
	ts.Check(f.Registry.SetOnline(context.Background(), args[1], true))
}
