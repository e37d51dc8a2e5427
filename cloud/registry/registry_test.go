package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/infer"
)

// clock is a hand-set clock.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func openTest(t *testing.T) (*Registry, *clock) {
	t.Helper()
	c := &clock{t: start}
	return openAt(t, t.TempDir(), c), c
}

func openAt(t *testing.T, dir string, c *clock) *Registry {
	t.Helper()
	r, err := OpenWith(t.Context(), dir, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, kind error, hint string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, wanted a %q", err, kind)
	}
	if !strings.Contains(err.Error(), hint) {
		t.Fatalf("%q does not say %q", err, hint)
	}
}

// nasty holds what breaks SQL that is glued together.
const nasty = `O'Brien "x" -- ; DROP TABLE models; %_\ ` + "`" + ` ü 🐑`

func testSpec(labels ...string) infer.Spec {
	return infer.Spec{
		Contract: infer.Contract{
			Input:  infer.TensorSpec{Shape: []int{1, 8, 8, 3}, DType: infer.Float32},
			Output: infer.TensorSpec{Shape: []int{1, len(labels)}, DType: infer.Float32},
		},
		Labels:      labels,
		Preprocess:  infer.Preprocess{Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear, Mean: []float32{127.5}, Std: []float32{0.1}},
		Postprocess: infer.DefaultPostprocess(),
	}
}

func addModel(t *testing.T, r *Registry, name string) Model {
	t.Helper()
	b := must(r.PutBytes(t.Context(), []byte("model of "+name)))(t)
	return must(r.AddModel(t.Context(), Model{Name: name, TFLite: b.Digest, Spec: testSpec("a", "b")}))(t)
}

func addRelease(t *testing.T, r *Registry, path string) Release {
	t.Helper()
	m := addModel(t, r, "gate")
	b := must(r.PutBytes(t.Context(), []byte("manifest")))(t)
	return must(r.AddRelease(t.Context(), Release{Path: path, Model: m.Name, Version: m.Version, Manifest: b.Digest}))(t)
}

func TestModelIsImmutableAndKeepsEveryField(t *testing.T) {
	r, _ := openTest(t)
	ctx := t.Context()
	b := must(r.PutBytes(ctx, []byte("TFL3")))(t)
	m := Model{
		Name: nasty, TFLite: b.Digest, Spec: testSpec(nasty, "b"), Dataset: nasty,
		Lineage: json.RawMessage(`{"seed": 18446744073709551615, "a": 1}`), Metrics: json.RawMessage(`{"top1":0.9}`), Parents: []string{nasty + "@1"},
	}
	first := must(r.AddModel(ctx, m))(t)
	want := m
	want.Version, want.Created, want.Lineage = 1, start, json.RawMessage(`{"a":1,"seed":18446744073709551615}`)
	if d := cmp.Diff(want, first); d != "" {
		t.Fatal(d)
	}
	m.Version = 1
	again := must(r.AddModel(ctx, m))(t)
	if d := cmp.Diff(first, again); d != "" {
		t.Fatal(d)
	}
	changed := map[string]func(*Model){
		"spec":    func(m *Model) { m.Spec.Labels = []string{"x", "y"} },
		"dataset": func(m *Model) { m.Dataset = "other" },
		"lineage": func(m *Model) { m.Lineage = json.RawMessage(`{}`) },
		"metrics": func(m *Model) { m.Metrics = nil },
		"parents": func(m *Model) { m.Parents = nil },
		"tflite":  func(m *Model) { m.TFLite = must(r.PutBytes(ctx, []byte("other")))(t).Digest },
	}
	for name, change := range changed {
		other := m
		change(&other)
		_, err := r.AddModel(ctx, other)
		if !errors.Is(err, ErrImmutable) {
			t.Errorf("%s: got %v, wanted ErrImmutable", name, err)
		}
	}
	m.Version = 0
	if second := must(r.AddModel(ctx, m))(t); second.Version != 2 {
		t.Errorf("version %d, wanted 2", second.Version)
	}
	check(t, r.SetAlias(ctx, nasty, nasty, 1))
	for which, v := range map[string]int{"": 2, "latest": 2, "1": 1, nasty: 1} {
		if got := must(r.Model(ctx, nasty, which))(t); got.Version != v {
			t.Errorf("%q is version %d, wanted %d", which, got.Version, v)
		}
	}
	check(t, r.SetAlias(ctx, nasty, nasty, 2))
	if got := must(r.ModelByRef(ctx, nasty+"@"+nasty))(t); got.Version != 2 {
		t.Errorf("moved alias is version %d", got.Version)
	}
	if as := must(r.Aliases(ctx, nasty))(t); len(as) != 1 || as[0] != (Alias{nasty, nasty, 2}) {
		t.Errorf("aliases %v", as)
	}
	check(t, r.RemoveAlias(ctx, nasty, nasty))
	wantErr(t, r.RemoveAlias(ctx, nasty, nasty), ErrNotFound, "alias")
}

func TestNotFoundSaysWhatThereIs(t *testing.T) {
	r, _ := openTest(t)
	ctx := t.Context()
	_, err := r.Model(ctx, "gate", "")
	wantErr(t, err, ErrNotFound, "train or push")
	addRelease(t, r, "models/gate/1")
	check(t, r.SetAlias(ctx, "gate", "production", 1))
	_, err = r.Model(ctx, "gaet", "")
	wantErr(t, err, ErrNotFound, "there are: gate")
	_, err = r.Model(ctx, "gate", "7")
	wantErr(t, err, ErrNotFound, `model "gate@7" not found; versions of it: 1; aliases: production`)
	wantErr(t, r.SetAlias(ctx, "gate", "next", 9), ErrNotFound, "versions of it: 1")
	_, err = r.Release(ctx, "models/gate/2")
	wantErr(t, err, ErrNotFound, "newest releases: models/gate/1")
	_, err = r.Rollout(ctx, "x")
	wantErr(t, err, ErrNotFound, "rollout")
	_, err = r.LatestMetadata(ctx, "root")
	wantErr(t, err, ErrNotFound, "drover init")
	_, err = r.Device(ctx, "x")
	wantErr(t, err, ErrNotFound, "drover devices")
	_, err = r.Blob(ctx, strings.Repeat("0", 64))
	wantErr(t, err, ErrNotFound, "never stored")
	_, err = r.AddModel(ctx, Model{Name: "n", TFLite: strings.Repeat("0", 64)})
	wantErr(t, err, ErrNotFound, "its .tflite")
}

func TestInvalidIsRefusedByName(t *testing.T) {
	r, _ := openTest(t)
	ctx := t.Context()
	m := addModel(t, r, "gate")
	_, atSign := r.AddModel(ctx, Model{Name: "a@b", TFLite: m.TFLite})
	_, trailing := r.AddModel(ctx, Model{Name: "a", TFLite: m.TFLite, Metrics: json.RawMessage(`{} {}`)})
	_, digest := r.Blob(ctx, "../../etc/passwd")
	_, epoch := r.AddRelease(ctx, Release{Path: "p", Model: "gate", Version: 1, Epoch: -1})
	_, lease := r.AcquireLease(ctx, "l", "h", 0)
	for _, c := range []struct {
		err  error
		says string
	}{
		{atSign, "@"}, {trailing, "follows"}, {digest, "SHA-256"}, {epoch, "epoch"}, {lease, "lease"},
		{r.SetAlias(ctx, "gate", "12", 1), "read as a version"},
		{r.SetAlias(ctx, "gate", "", 1), "empty"},
		{r.SetAlias(ctx, "gate", "a\nb", 1), "control"},
		{r.SetAlias(ctx, "gate", "a\xff", 1), "UTF-8"},
		{r.SetAlias(ctx, "gate", strings.Repeat("a", 257), 1), "257"},
		{r.AppendMetadata(ctx, "root", 0, []byte("x")), "version 0"},
		{r.SetReleaseState(ctx, "p", "gone"), "revoked"},
		{r.CreateToken(ctx, Token{Hash: m.TFLite, UsesLeft: 1, Expires: start}), "expires"},
	} {
		wantErr(t, c.err, ErrInvalid, c.says)
	}
}

func TestBlobs(t *testing.T) {
	r, _ := openTest(t)
	ctx := t.Context()
	big := bytes.Repeat([]byte("0123456789abcdef"), spoolAbove/16+1000)
	for name, data := range map[string][]byte{"empty": {}, "small": []byte("hello"), "at the spool limit": big[:spoolAbove], "spooled": big} {
		t.Run(name, func(t *testing.T) {
			sum := sha256.Sum256(data)
			want := Blob{Digest: hex.EncodeToString(sum[:]), Size: int64(len(data)), Created: start}
			got := must(r.PutBlob(ctx, bytes.NewReader(data), Expect{Digest: want.Digest, Max: want.Size}))(t)
			if got != want {
				t.Fatalf("got %+v, wanted %+v", got, want)
			}
			if back := must(r.ReadBlob(ctx, got.Digest, want.Size))(t); !bytes.Equal(back, data) {
				t.Error("other bytes came back")
			}
			if len(data) == 0 {
				return
			}
			_, err := r.ReadBlob(ctx, got.Digest, want.Size-1)
			wantErr(t, err, ErrTooLarge, "allowed")
			_, err = r.PutBlob(ctx, bytes.NewReader(data), Expect{Max: want.Size - 1})
			wantErr(t, err, ErrTooLarge, "more than")
			_, err = r.PutBlob(ctx, bytes.NewReader(data), Expect{Digest: strings.Repeat("0", 64)})
			wantErr(t, err, ErrCorrupt, "expected 000")
			p := make([]byte, 4)
			n, err := r.ReadBlobAt(ctx, got.Digest, p, want.Size-3)
			if n != 3 || err == nil || !bytes.Equal(p[:n], data[len(data)-3:]) {
				t.Errorf("last bytes: %d %q %v", n, p[:n], err)
			}
			if n, err := r.ReadBlobAt(ctx, got.Digest, p, 1); n != 4 || err != nil || !bytes.Equal(p, data[1:5]) {
				t.Errorf("middle bytes: %d %q %v", n, p, err)
			}
		})
	}
}

func TestReleasesRolloutsMetadataAudit(t *testing.T) {
	r, c := openTest(t)
	ctx := t.Context()
	rel := addRelease(t, r, nasty)
	if rel.State != ReleaseActive || rel.Created != start {
		t.Fatalf("release %+v", rel)
	}
	c.t = c.t.Add(time.Hour)
	if again := must(r.AddRelease(ctx, rel))(t); again != rel {
		t.Errorf("again %+v", again)
	}
	other := rel
	other.Epoch = 5
	_, err := r.AddRelease(ctx, other)
	wantErr(t, err, ErrImmutable, "DROP TABLE")
	check(t, r.SetReleaseState(ctx, nasty, ReleaseRevoked))
	if rs := must(r.Releases(ctx, "gate"))(t); len(rs) != 1 || rs[0].State != ReleaseRevoked {
		t.Errorf("releases %+v", rs)
	}

	ro := must(r.AddRollout(ctx, Rollout{ID: nasty, Release: nasty, Plan: json.RawMessage(`{"b": 1, "a": "'"}`), State: "running", Reason: nasty}))(t)
	_, err = r.AddRollout(ctx, ro)
	wantErr(t, err, ErrImmutable, "rollout")
	c.t = c.t.Add(time.Hour)
	up := must(r.UpdateRollout(ctx, nasty, func(ro *Rollout) error { ro.State, ro.ID = "done", "ignored"; return nil }))(t)
	if got := must(r.Rollout(ctx, nasty))(t); cmp.Diff(up, got) != "" || got.State != "done" || got.Updated != c.t || got.Created == c.t {
		t.Errorf("updated %+v, read %+v", up, got)
	}
	stop := errors.New("no")
	if _, err := r.UpdateRollout(ctx, nasty, func(ro *Rollout) error { ro.State = "half"; return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if n := len(must(r.Rollouts(ctx, "done", "half"))(t)); n != 1 {
		t.Errorf("%d rollouts", n)
	}
	if n := len(must(r.Rollouts(ctx, "half"))(t)); n != 0 {
		t.Errorf("%d rollouts half done", n)
	}

	check(t, r.AppendMetadata(ctx, nasty, 3, []byte{0, 1, '\''}))
	check(t, r.AppendMetadata(ctx, nasty, 3, []byte{0, 1, '\''}))
	wantErr(t, r.AppendMetadata(ctx, nasty, 3, []byte("other")), ErrImmutable, "version 3")
	wantErr(t, r.AppendMetadata(ctx, nasty, 2, []byte("older")), ErrImmutable, "only grow")
	err = r.PublishMetadata(ctx, nil, Metadata{Role: "snapshot", Version: 1, Bytes: []byte("s")}, Metadata{Role: nasty, Version: 1, Bytes: []byte("x")})
	wantErr(t, err, ErrImmutable, "")
	_, err = r.LatestMetadata(ctx, "snapshot")
	wantErr(t, err, ErrNotFound, "snapshot") // all or nothing
	check(t, r.PublishMetadata(ctx, nil, Metadata{Role: "timestamp", Version: 7, Bytes: []byte("t")}, Metadata{Role: "timestamp", Version: 8, Bytes: []byte("u")}))
	if m := must(r.LatestMetadata(ctx, "timestamp"))(t); m.Version != 8 || string(m.Bytes) != "u" || m.Created != c.t {
		t.Errorf("latest %+v", m)
	}
	if m := must(r.Metadata(ctx, nasty, 3))(t); !bytes.Equal(m.Bytes, []byte{0, 1, '\''}) {
		t.Errorf("bytes %v", m.Bytes)
	}
	if all := must(r.AllLatestMetadata(ctx))(t); len(all) != 2 {
		t.Errorf("%d roles", len(all))
	}
	if n := must(r.PruneMetadata(ctx, "timestamp", 0))(t); n != 1 {
		t.Errorf("pruned %d", n)
	}
	if vs := must(r.MetadataVersions(ctx, "timestamp"))(t); cmp.Diff([]int64{8}, vs) != "" {
		t.Errorf("versions %v", vs)
	}

	check(t, r.Audit(ctx, nasty, nasty, map[string]string{nasty: nasty}))
	if es := must(r.AuditLog(ctx, 5))(t); len(es) != 1 || es[0].Actor != nasty || !json.Valid(es[0].Body) {
		t.Errorf("audit %+v", es)
	}
}

func TestDevicesAndEvents(t *testing.T) {
	r, c := openTest(t)
	ctx := t.Context()
	d := Device{ID: nasty, Shard: "a", Labels: map[string]string{nasty: nasty, "site": "north"}, Cert: Cert{Serial: nasty, Fingerprint: nasty, Expiry: start.Add(time.Hour)}}
	check(t, r.UpsertDevice(ctx, d))
	check(t, r.UpsertDevice(ctx, Device{ID: "zz", Shard: "b"}))
	c.t = c.t.Add(time.Minute)
	if !must(r.RecordState(ctx, nasty, "boot1", 5, json.RawMessage(`{"x": "it's"}`)))(t) {
		t.Error("first state is not fresh")
	}
	for _, seq := range []int64{5, 4} {
		if must(r.RecordState(ctx, nasty, "boot1", seq, json.RawMessage(`{}`)))(t) {
			t.Errorf("sequence %d after 5 is fresh", seq)
		}
	}
	check(t, r.SetOnline(ctx, nasty, true))
	d.Labels = map[string]string{"site": "south"}
	check(t, r.UpsertDevice(ctx, d)) // renewal keeps reports
	want := d
	want.EnrolledAt, want.LastSeen, want.Online, want.State, want.Boot, want.Seq = start, c.t, true, json.RawMessage(`{"x":"it's"}`), "boot1", 5
	if diff := cmp.Diff(want, must(r.Device(ctx, nasty))(t)); diff != "" {
		t.Fatal(diff)
	}
	if !must(r.RecordState(ctx, nasty, "boot2", 1, nil))(t) {
		t.Error("a new boot starts over")
	}
	_, err := r.RecordState(ctx, "nobody", "b", 1, nil)
	wantErr(t, err, ErrNotFound, "nobody")

	yes, no := true, false
	check(t, r.RevokeDevice(ctx, "zz"))
	first := must(r.Device(ctx, "zz"))(t).RevokedAt
	c.t = c.t.Add(time.Minute)
	check(t, r.RevokeDevice(ctx, "zz"))
	if got := must(r.Device(ctx, "zz"))(t); got.RevokedAt != first || !got.Revoked() {
		t.Errorf("revoked at %v, first %v", got.RevokedAt, first)
	}
	for name, c := range map[string]struct {
		f    DeviceFilter
		want []string
	}{
		"all":     {DeviceFilter{}, []string{nasty, "zz"}},
		"limit":   {DeviceFilter{Limit: 1}, []string{nasty}},
		"after":   {DeviceFilter{After: nasty}, []string{"zz"}},
		"shard":   {DeviceFilter{Shard: "b"}, []string{"zz"}},
		"online":  {DeviceFilter{Online: &yes}, []string{nasty}},
		"offline": {DeviceFilter{Online: &no}, []string{"zz"}},
		"revoked": {DeviceFilter{Revoked: &yes}, []string{"zz"}},
		"labels":  {DeviceFilter{Labels: map[string]string{"site": "south"}}, []string{nasty}},
		"nothing": {DeviceFilter{Labels: map[string]string{"site": "north"}}, nil},
	} {
		var ids []string
		for _, d := range must(r.Devices(ctx, c.f))(t) {
			ids = append(ids, d.ID)
		}
		if diff := cmp.Diff(c.want, ids); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}

	e := Event{Device: nasty, Boot: nasty, Seq: 1, At: start, Kind: nasty, Release: nasty, Body: json.RawMessage(`{"why":"'"}`)}
	if !must(r.AddEvent(ctx, e))(t) || must(r.AddEvent(ctx, e))(t) {
		t.Error("an event is added exactly once")
	}
	e2, e3 := e, e
	e2.Seq, e3.Seq, e3.Kind = 2, 3, "other"
	if n := must(r.AddEvents(ctx, []Event{e, e2, e3}))(t); n != 2 {
		t.Errorf("%d of two new events added", n)
	}
	_, err = r.AddEvents(ctx, []Event{{Device: nasty, Kind: "k", Seq: 9}, {Device: "nobody", Kind: "k"}})
	wantErr(t, err, ErrNotFound, "nobody")
	es := must(r.Events(ctx, EventFilter{Device: nasty, Kind: nasty, Release: nasty}))(t)
	if len(es) != 2 || es[0].Seq != 2 {
		t.Fatalf("events %+v", es)
	}
	e.ID = es[1].ID
	if diff := cmp.Diff(e, es[1]); diff != "" {
		t.Error(diff)
	}
	if next := must(r.Events(ctx, EventFilter{After: e.ID}))(t); len(next) != 2 || next[0].Seq != 2 {
		t.Errorf("following: %+v", next)
	}
}

func TestChangeCounterCountsByArea(t *testing.T) {
	r, _ := openTest(t)
	ctx := t.Context()
	count := func(areas ...Area) int64 { return must(r.ChangeCounter(ctx, areas...))(t) }
	if count() != 0 {
		t.Fatal("a new registry has changes")
	}
	addModel(t, r, "gate")
	check(t, r.UpsertDevice(ctx, Device{ID: "d", Shard: "a"}))
	check(t, r.SetOnline(ctx, "d", true))
	got := []int64{count(), count(AreaModels), count(AreaDevices, AreaReports), count(AreaMetadata)}
	if diff := cmp.Diff([]int64{3, 1, 2, 0}, got); diff != "" {
		t.Error(diff)
	}
	wantErr(t, r.SetOnline(ctx, "e", true), ErrNotFound, "")
	if count() != 3 {
		t.Error("a refused write counts")
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	r := must(Open(t.Context(), dir))(t)
	if _, err := r.store.writer.ExecContext(t.Context(), `INSERT INTO schema_version (version) VALUES (99)`); err != nil {
		t.Fatal(err)
	}
	check(t, r.Close())
	_, err := Open(context.Background(), dir)
	wantErr(t, err, ErrNewerSchema, "update drover")
}
