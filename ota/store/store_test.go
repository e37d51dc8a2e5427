package store_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/ota/internal/disk"
	"github.com/droverhq/drover/ota/store"
)

const plenty = 1 << 30

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func open(t *testing.T, fsys store.FS) *store.Store {
	t.Helper()
	s, err := store.Open(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(s *store.Store, data []byte) error {
	p, err := s.Blobs().Part(digestOf(data))
	if err != nil {
		return err
	}
	if _, err := p.WriteAt(data, 0); err != nil {
		p.Close()
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return s.Blobs().Put(digestOf(data))
}

func release(n int, blobs ...[]byte) *store.Release {
	r := &store.Release{Path: "release/gate/" + strconv.Itoa(n), Variant: "cpu", Runtime: []byte(`{"threads":1}`)}
	for i, d := range []*string{&r.Manifest, &r.Model, &r.Golden} {
		if i < len(blobs) {
			*d = digestOf(blobs[i])
		} else {
			*d = digestOf(fmt.Append(nil, n, i))
		}
	}
	return r
}

func TestWhatIsSavedIsThereAfterReopening(t *testing.T) {
	dir, err := store.OpenDir(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := open(t, dir)
	slots := store.Slots{Active: release(2), Previous: release(1)}
	files := map[string][]byte{"root": []byte("{}"), "targets": {0, 1, 2}}
	blob := bytes.Repeat([]byte("model"), 100)
	for _, err := range []error{
		put(s, blob), s.SaveSlots(slots), s.SaveJournal([]byte("one")), s.SaveJournal([]byte("two")), s.SaveTrust(files, []byte("floor")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if p := s.Problems(); len(p) != 0 {
		t.Errorf("problems of a whole store: %v", p)
	}
	if diff := cmp.Diff(slots, s.Slots()); diff != "" {
		t.Error(diff)
	}
	if got := string(s.Journal()); got != "two" {
		t.Errorf("journal %q", got)
	}
	gotFiles, floor, err := s.LoadTrust()
	if err != nil || string(floor) != "floor" || !cmp.Equal(files, gotFiles) {
		t.Errorf("trust: %v, floor %q, err %v", gotFiles, floor, err)
	}
	got, err := s.Blobs().Read(digestOf(blob), int64(len(blob)))
	if err != nil || !bytes.Equal(got, blob) {
		t.Errorf("blob: %d bytes, %v", len(got), err)
	}
	if b, err := os.ReadFile(s.Blobs().Path(digestOf(blob))); err != nil || !bytes.Equal(b, blob) {
		t.Errorf("the path does not lead to the blob: %v", err)
	}
}

// TestPowerCut saves everything several times over, lets the power go at every
// single operation, and looks at what the next start finds.
func TestPowerCut(t *testing.T) {
	const rounds = 4
	blobs := make([][]byte, rounds+1)
	for i := range blobs {
		blobs[i] = bytes.Repeat([]byte{byte(i)}, 1000+i)
	}
	// story runs until the power goes and returns how many of each kind were
	// acknowledged.
	type acked struct{ blob, slots, journal, trust int }
	story := func(d *disk.Disk) (a acked) {
		s, err := store.Open(d)
		if err != nil {
			return a
		}
		for i := 1; i <= rounds; i++ {
			if put(s, blobs[i]) != nil {
				return a
			}
			a.blob = i
			if s.SaveSlots(store.Slots{Active: release(i, nil, blobs[i])}) != nil {
				return a
			}
			a.slots = i
			if s.SaveJournal([]byte(strconv.Itoa(i))) != nil {
				return a
			}
			a.journal = i
			if s.SaveTrust(map[string][]byte{"root": []byte(strconv.Itoa(i))}, []byte(strconv.Itoa(i))) != nil {
				return a
			}
			a.trust = i
			s.GC()
		}
		return a
	}
	whole := disk.New(plenty)
	story(whole)
	if whole.Ops() < 100 {
		t.Fatalf("the story has only %d operations", whole.Ops())
	}
	number := func(b []byte) int { n, _ := strconv.Atoi(string(b)); return n }
	for cut := 1; cut <= whole.Ops(); cut++ {
		for mode := disk.Lost; mode < disk.NumModes; mode++ {
			d := disk.New(plenty)
			d.CutAt(cut)
			a := story(d)
			s, err := store.Open(d.AfterCut(mode))
			if err != nil {
				t.Fatalf("cut %d mode %d: %v", cut, mode, err)
			}
			active := 0
			if r := s.Slots().Active; r != nil {
				active = number([]byte(strings.TrimPrefix(r.Path, "release/gate/")))
				if err := s.Blobs().Check(r.Model); err != nil {
					t.Errorf("cut %d mode %d: the active model is not whole: %v", cut, mode, err)
				}
			}
			files, floor, _ := s.LoadTrust()
			for _, c := range []struct {
				what       string
				got, acked int
			}{
				{"slots", active, a.slots},
				{"journal", number(s.Journal()), a.journal},
				{"trust", number(files["root"]), a.trust},
				{"floor", number(floor), a.trust},
			} {
				if c.got < c.acked || c.got > c.acked+1 {
					t.Errorf("cut %d mode %d: %s is %d, acknowledged was %d", cut, mode, c.what, c.got, c.acked)
				}
			}
			if number(files["root"]) > number(floor) {
				t.Errorf("cut %d mode %d: files %s above floor %s", cut, mode, files["root"], floor)
			}
			if a.blob > 0 && a.slots == a.blob && !s.Blobs().Has(digestOf(blobs[a.blob])) {
				t.Errorf("cut %d mode %d: blob %d is gone", cut, mode, a.blob)
			}
			if story(d.AfterCut(mode)).trust != rounds {
				t.Errorf("cut %d mode %d: the store does not work any more", cut, mode)
			}
		}
	}
}

func TestDamageStaysWhereItIs(t *testing.T) {
	damages := map[string]func([]byte) []byte{
		"a flipped bit":  func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"a flipped head": func(b []byte) []byte { b[15] ^= 1; return b },
		"a cut":          func(b []byte) []byte { return b[:len(b)/2] },
		"nothing left":   func([]byte) []byte { return nil },
		"more at end":    func(b []byte) []byte { return append(b, 'x') },
		"other bytes":    func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, len(b)) },
		"far too much":   func([]byte) []byte { return make([]byte, 16<<20) },
	}
	fill := func() *disk.Disk {
		d := disk.New(plenty)
		s := open(t, d)
		for i := range 3 {
			if err := errors.Join(
				s.SaveSlots(store.Slots{Active: release(i)}), s.SaveJournal([]byte{'0' + byte(i)}),
				s.SaveTrust(map[string][]byte{"root": {'0' + byte(i)}}, []byte{'0' + byte(i)}),
			); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	for _, name := range fill().Names() {
		for what, damage := range damages {
			d := fill()
			d.Damage(name, damage)
			s := open(t, d)
			kind := strings.TrimSuffix(strings.TrimSuffix(name, ".a"), ".b")
			problems := s.Problems()
			if len(problems) != 1 || !errors.Is(problems[0], store.ErrCorrupt) || !strings.Contains(problems[0].Error(), name) {
				t.Errorf("%s of %s: problems %v", what, name, problems)
			}
			journal := string(s.Journal())
			files, floor, err := s.LoadTrust()
			if err != nil {
				t.Errorf("%s of %s: %v", what, name, err)
			}
			// Alternating records may be one step back if it was they.
			if journal != "2" && (kind != "journal" || journal != "1") {
				t.Errorf("%s of %s: journal %q", what, name, journal)
			}
			if r := string(files["root"]); r != "2" && (kind != "trust" || r != "1") {
				t.Errorf("%s of %s: trust %q", what, name, r)
			}
			if string(floor) != "2" || s.Slots().Active.Path != "release/gate/2" {
				t.Errorf("%s of %s: floor %q, active %v", what, name, floor, s.Slots().Active)
			}
			if kind == "slots" || kind == "floor" {
				if p := open(t, d).Problems(); len(p) != 0 {
					t.Errorf("%s of %s did not heal: %v", what, name, p)
				}
			}
		}
	}
}

func TestMissingMirrorHeals(t *testing.T) {
	for _, name := range []string{"slots.a", "slots.b", "floor.a", "floor.b"} {
		d := disk.New(plenty)
		s := open(t, d)
		if err := errors.Join(s.SaveSlots(store.Slots{Active: release(1)}), s.SaveTrust(nil, []byte("7"))); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(name); err != nil {
			t.Fatal(err)
		}
		s = open(t, d)
		_, floor, _ := s.LoadTrust()
		if s.Slots().Active == nil || string(floor) != "7" {
			t.Errorf("without %s: active %v, floor %q", name, s.Slots().Active, floor)
		}
		if p := s.Problems(); len(p) != 1 {
			t.Errorf("without %s: problems %v", name, p)
		}
		if p := open(t, d).Problems(); len(p) != 0 {
			t.Errorf("%s was not written again: %v", name, p)
		}
	}
}

func TestFullDiskLosesNothing(t *testing.T) {
	d := disk.New(plenty)
	s := open(t, d)
	model := bytes.Repeat([]byte("m"), 50_000)
	slots := store.Slots{Active: release(1, nil, model)}
	if err := errors.Join(put(s, model), s.SaveSlots(slots), s.SaveJournal([]byte("old")), s.SaveTrust(nil, []byte("1"))); err != nil {
		t.Fatal(err)
	}
	free, _ := d.Free()
	d.Resize(plenty - free) // exactly full
	big := bytes.Repeat([]byte("b"), 100_000)
	for what, err := range map[string]error{
		"blob":    put(s, big),
		"slots":   s.SaveSlots(store.Slots{Active: release(2)}),
		"journal": s.SaveJournal([]byte("new")),
		"trust":   s.SaveTrust(nil, []byte("2")),
		"reserve": s.Blobs().Reserve(1),
	} {
		if !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	for _, s := range []*store.Store{s, open(t, d)} {
		_, floor, _ := s.LoadTrust()
		if diff := cmp.Diff(slots, s.Slots()); diff != "" || string(s.Journal()) != "old" || string(floor) != "1" {
			t.Errorf("after a full disk: %s journal %q floor %q", diff, s.Journal(), floor)
		}
		if err := s.Blobs().Check(digestOf(model)); err != nil {
			t.Error(err)
		}
	}
	d.Resize(plenty)
	if err := errors.Join(put(s, big), s.SaveJournal([]byte("new"))); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestBlobs(t *testing.T) {
	d := disk.New(plenty)
	s := open(t, d)
	b := s.Blobs()
	good, bad := []byte("the right bytes"), []byte("the wrong bytes")
	p, err := b.Part(digestOf(good))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt(bad, 0); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if b.Has(digestOf(good)) {
		t.Error("a .part counts as a blob")
	}
	if n := b.PartSize(digestOf(good)); n != int64(len(bad)) {
		t.Errorf("part size %d", n)
	}
	if err := b.Put(digestOf(good)); !errors.Is(err, store.ErrDigest) {
		t.Errorf("wrong bytes put: %v", err)
	}
	if err := b.Put(digestOf(good)); !errors.Is(err, store.ErrMissing) {
		t.Errorf("the wrong .part is still there: %v", err)
	}
	if err := put(s, good); err != nil {
		t.Fatal(err)
	}
	if err := put(s, good); err != nil {
		t.Errorf("the same blob again: %v", err)
	}
	d.Damage("blobs/"+digestOf(good), func([]byte) []byte { return bad })
	if _, err := b.Read(digestOf(good), 1<<20); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("damaged blob read: %v", err)
	}
	if b.Has(digestOf(good)) {
		t.Error("a damaged blob stays")
	}
	if err := put(s, good); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(digestOf(good), 3); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("blob over its limit read: %v", err)
	}
	for _, name := range []string{"", "..", "../slots.a", strings.Repeat("A", 64), strings.Repeat("0", 63), strings.Repeat("g", 64)} {
		if _, err := b.Part(name); !errors.Is(err, store.ErrDigest) {
			t.Errorf("part %q: %v", name, err)
		}
		if b.Has(name) || b.Put(name) == nil || b.DropPart(name) == nil || b.Check(name) == nil {
			t.Errorf("%q is taken for a digest", name)
		}
	}
}

func TestGCKeepsWhatIsNamed(t *testing.T) {
	d := disk.New(plenty)
	s := open(t, d)
	blob := func(i int) []byte { return []byte{byte(i)} }
	for i := range 12 {
		if err := put(s, blob(i)); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := s.Blobs().Part(digestOf([]byte("part"))); err != nil || p.Close() != nil {
		t.Fatal(err)
	}
	if err := s.SaveSlots(store.Slots{
		Active: release(3, blob(0), blob(1), blob(2)), Previous: release(2, blob(3), blob(4), blob(5)), Candidate: release(4, blob(6), blob(7), blob(8)),
	}); err != nil {
		t.Fatal(err)
	}
	n, err := s.GC(digestOf(blob(9)))
	if n != 3 || err != nil { // two blobs and the part
		t.Errorf("%d files removed, %v", n, err)
	}
	for i := range 12 {
		if got, want := s.Blobs().Has(digestOf(blob(i))), i <= 9; got != want {
			t.Errorf("blob %d: here %v, want %v", i, got, want)
		}
	}
}

func TestLinksDoNotLeadOut(t *testing.T) {
	tmp := t.TempDir()
	dir, err := store.OpenDir(filepath.Join(tmp, "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := open(t, dir)
	victim := filepath.Join(tmp, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	digest := digestOf([]byte("x"))
	if err := os.Symlink(victim, filepath.Join(tmp, "state", "parts", digest+".part")); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Blobs().Part(digest); err == nil {
		p.Close()
		t.Error("a link out of the folder was followed")
	}
	if b, _ := os.ReadFile(victim); string(b) != "untouched" {
		t.Errorf("victim is %q", b)
	}
}
