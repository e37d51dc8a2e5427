package statuspage

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

func english(t testing.TB) language {
	t.Helper()
	l, err := loadLanguage("en")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Snapshot)
		is   string
		key  string
	}{
		{"working", func(*Snapshot) {}, "ok", "verdict.ok"},
		{"updating", func(s *Snapshot) { s.State.Update.State = wire.Probe }, "ok", "verdict.updating"},
		{"offline", func(s *Snapshot) { s.Connected = false }, "warn", "verdict.offline"},
		{"stale", func(s *Snapshot) { s.State.Freshness = "stale" }, "warn", "verdict.stale"},
		{"no release", func(s *Snapshot) { s.State.Active, s.Model.Release = nil, "" }, "warn", "verdict.norelease"},
		{"no fleet", func(s *Snapshot) { s.Fleet, s.Connected = "", false }, "warn", "verdict.nofleet"},
		{"sick beats all", func(s *Snapshot) { s.Fleet, s.State.Healthy = "", false }, "bad", "verdict.bad"},
	} {
		s := healthy()
		c.edit(&s)
		l := english(t)
		if is, headline := l.verdict(s); is != c.is || headline != l.t(c.key) {
			t.Errorf("%s: %s, %q", c.name, is, headline)
		}
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Snapshot)
		want []string // parts, in order
	}{
		{"none", func(*Snapshot) {}, nil},
		{"sick", func(s *Snapshot) { s.State.Healthy, s.State.Problems = false, []string{"a", "b", "a"} }, []string{"a", "b"}},
		{"sick without reason", func(s *Snapshot) { s.State.Healthy = false }, []string{"without a reason"}},
		{"config", func(s *Snapshot) { s.State.Config = "line 3" }, []string{"line 3"}},
		{"link", func(s *Snapshot) { s.Connected, s.LinkError = false, "refused" }, []string{"broker: refused"}},
		{"link, no reason", func(s *Snapshot) { s.Connected = false }, []string{"not known yet"}},
		{"newcomer", func(s *Snapshot) { s.Fleet, s.Connected, s.State.Freshness = "", false, "stale" }, []string{"drover enroll"}},
		{"newcomer refused", func(s *Snapshot) { s.Fleet, s.Connected, s.LinkError = "", false, "token refused" }, []string{"token refused"}},
		{"stale", func(s *Snapshot) { s.State.Freshness = "stale" }, []string{"expired"}},
		{"outbox, told once", func(s *Snapshot) {
			s.State.Healthy, s.State.Problems, s.Outbox.Problem = false, []string{"disk full"}, "disk full"
		}, []string{"disk full"}},
	} {
		s := healthy()
		c.edit(&s)
		got := english(t).problems(s, "")
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		for i, part := range c.want {
			if !strings.Contains(got[i].Text, part) {
				t.Errorf("%s: %q lacks %q", c.name, got[i].Text, part)
			}
		}
	}
}

func TestStepsMarkThePresentOne(t *testing.T) {
	refused := Entry{Event: wire.Event{Kind: wire.EventUpdate, Release: "r", From: wire.Check, Outcome: wire.Refused, Reason: wire.ReasonContract}}
	for _, c := range []struct {
		name    string
		update  wire.UpdateStatus
		history []Entry
		want    string
	}{
		{"idle", wire.UpdateStatus{State: wire.Idle}, nil, "idle:rest verify fetch assemble check probe activate probation commit"},
		{"nothing known", wire.UpdateStatus{}, nil, "idle:rest verify fetch assemble check probe activate probation commit"},
		{"fetch", wire.UpdateStatus{State: wire.Fetch}, nil, "idle:done verify:done fetch:now assemble check probe activate probation commit"},
		{"shadow", wire.UpdateStatus{State: wire.Shadow}, nil, "idle:done verify:done fetch:done assemble:done check:done probe:done shadow:now activate probation commit"},
		{"rollback", wire.UpdateStatus{State: wire.Rollback}, nil, "idle verify fetch assemble check probe activate probation commit rollback:now"},
		{"refused", wire.UpdateStatus{State: wire.Idle, Release: "r", Outcome: wire.Refused}, []Entry{refused}, "idle:rest verify fetch assemble check:failed probe activate probation commit"},
		{"another was refused", wire.UpdateStatus{State: wire.Idle, Release: "q", Outcome: wire.Committed}, []Entry{refused}, "idle:rest verify fetch assemble check probe activate probation commit"},
		{"from the future", wire.UpdateStatus{State: "polish"}, nil, "idle verify fetch assemble check probe activate probation commit"},
	} {
		w := english(t).update(Snapshot{Now: noon, State: wire.State{Update: c.update}, History: c.history})
		var got []string
		current := 0
		for _, s := range w.Steps {
			text := s.Key
			if s.Is != "" {
				text += ":" + s.Is
			}
			got = append(got, text)
			if s.Current == "step" {
				current++
			}
		}
		if strings.Join(got, " ") != c.want || current > 1 {
			t.Errorf("%s: %q, %d present", c.name, got, current)
		}
	}
}

func TestLastOutcome(t *testing.T) {
	s := healthy()
	s.State.Update = wire.UpdateStatus{State: wire.Idle, Release: "release/gate/5", Outcome: wire.Refused, Reason: wire.ReasonGolden, Message: "golden input 2", Finished: noon.Add(-3 * time.Minute).UnixMilli()}
	s.History = s.History[12:]
	w := english(t).update(s)
	if w.Last != "Last: release/gate/5 refused at probe: golden, 3 min ago" || w.LastIs != "bad" || w.Message != "golden input 2" {
		t.Errorf("%+v", w)
	}
}

func TestHugeAndEmptySnapshots(t *testing.T) {
	huge := healthy()
	huge.History = nil
	for i := range 5000 {
		huge.History = append(huge.History, Entry{At: noon, Event: wire.Event{Header: wire.Header{Boot: "B", Seq: uint64(i)}, Kind: wire.EventCamera, Message: strings.Repeat("m", 1000)}})
	}
	for _, c := range []struct {
		query string
		want  int
	}{{"", defaultHistory}, {"?history=all", 5000}, {"?history=-7", defaultHistory}} {
		body := get(t, &fake{snapshot: huge}, "/"+c.query).Body.String()
		if n := strings.Count(body, "mmmm</td>"); n != c.want {
			t.Errorf("%q: %d entries, want %d", c.query, n, c.want)
		}
	}
	for name, s := range map[string]Snapshot{"zero": {}, "no cameras": func() Snapshot { s := healthy(); s.Cameras = nil; return s }()} {
		w := get(t, &fake{snapshot: s}, "/")
		if w.Code != 200 || !strings.Contains(w.Body.String(), "No cameras are configured") || strings.Contains(w.Body.String(), "<no value>") {
			t.Errorf("%s: status %d", name, w.Code)
		}
	}
}

func TestHostileStringsAreEscaped(t *testing.T) {
	const evil = `"'><script>alert(1)</script>`
	s := healthy()
	fillStrings(reflect.ValueOf(&s).Elem(), evil)
	s.Cameras[0].State = "running"
	s.Cameras[0].Name = evil
	body := get(t, &fake{snapshot: s}, "/").Body.String()
	if n := strings.Count(body, "<script"); n != 1 {
		t.Errorf("%d script elements, one is ours", n)
	}
	if n := strings.Count(body, "alert(1)"); n < 30 {
		t.Errorf("only %d texts shown", n)
	}
}

// fillStrings puts text into every string of a value.
func fillStrings(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fillStrings(v.Field(i), text)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fillStrings(v.Index(i), text)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			fillStrings(v.Elem(), text)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{text: text}))
	}
}

// Each word is used and each use has its word; in every language.
func TestLanguagesAreComplete(t *testing.T) {
	used := map[string]bool{"lang": true}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, path := range append(sources, "web/page.html") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	en := english(t)
	for _, m := range regexp.MustCompile(`(?:\.t\(|\.add\(|\{\{t |aria-label="\{\{t |\{)"([a-z]+\.[a-z0-9.-]+)"`).FindAllStringSubmatch(code.String(), -1) {
		used[m[1]] = true
		if _, ok := en[m[1]]; !ok && !strings.HasSuffix(m[1], ".") {
			t.Errorf("no word for %q", m[1])
		}
	}
	for _, state := range order(wire.Shadow, wire.Rollback) {
		for _, key := range []string{"update." + string(state), "step." + string(state)} {
			used[key] = true
			if _, ok := en[key]; !ok {
				t.Errorf("no word for %q", key)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(en)) {
		dynamic := slices.ContainsFunc([]string{"state.", "device.assurance.", "update.committed", "update.refused", "update.rolled-back", "unit.hour", "unit.day"}, func(p string) bool { return strings.HasPrefix(key, p) })
		if !used[key] && !dynamic && !used[strings.TrimSuffix(key, ".title")] && !strings.Contains(code.String(), `"`+key+`"`) {
			t.Errorf("nothing uses %q", key)
		}
	}
	files, err := filepath.Glob("text/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	verb := regexp.MustCompile(`%\[\d\]s`)
	for _, path := range files {
		l, err := loadLanguage(strings.TrimSuffix(filepath.Base(path), ".json"))
		if err != nil {
			t.Fatal(err)
		}
		for key, text := range en {
			a, b := verb.FindAllString(text, -1), verb.FindAllString(l[key], -1)
			slices.Sort(a)
			slices.Sort(b)
			if l[key] == "" || !slices.Equal(a, b) {
				t.Errorf("%s: %q: %q", path, key, l[key])
			}
		}
	}
	if _, err := loadLanguage("xx"); err == nil {
		t.Error("a language that is not there")
	}
}

// Every text that the page asks the words for is there; the script would
// leave a gap without a word.
func TestBindingsMatchTheWords(t *testing.T) {
	page, err := os.ReadFile("web/page.html")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(english(t).describe(busy(), "", 1))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile(`data-(?:bind|each)="([^"]+)"`).FindAllStringSubmatch(string(page), -1) {
		for pair := range strings.FieldsSeq(m[1]) {
			path := pair[strings.Index(pair, ":")+1:]
			for part := range strings.SplitSeq(path, ".") {
				n++
				if !strings.Contains(string(b), fmt.Sprintf("%q:", part)) {
					t.Errorf("%s: no %q in the words", m[0], part)
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d bindings found", n)
	}
}

func TestFormat(t *testing.T) {
	l := english(t)
	for got, want := range map[string]string{
		l.elapsed(-time.Hour): "0 s", l.elapsed(59 * time.Second): "59 s", l.elapsed(90 * time.Minute): "1 h 30 min",
		l.elapsed(2 * time.Hour): "2 h", l.elapsed(50 * time.Hour): "2 d 2 h", l.elapsed(119 * time.Second): "1 min",
		micros(0): "0 µs", micros(850): "850 µs", micros(6510): "6.5 ms", micros(48200): "48 ms", micros(2_340_000): "2.3 s",
		size(999): "999 B", size(65536): "65.5 kB", size(3_664_512): "3.7 MB", size(214_000_000): "214 MB", size(5_000_000_000_000): "5000 GB",
		count(0): "0", count(999): "999", count(4104213): "4\u202f104\u202f213",
		percent(0): "0.0%", percent(.87314): "87.3%", percent(.99999): "99.9%", percent(1): "100.0%",
		clock(noon, noon): "12:00:00", clock(noon.Add(-24*time.Hour), noon): "13 Mar 12:00:00",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func BenchmarkPage(b *testing.B) {
	f := &fake{snapshot: healthy()}
	l := english(b)
	for b.Loop() {
		if _, err := json.Marshal(l.describe(f.Snapshot(), "", defaultHistory)); err != nil {
			b.Fatal(err)
		}
	}
}
