package ota

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/droverhq/drover/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write docs/UPDATE-STATES.md anew")

func target(n int) *Target {
	return &Target{
		Plan: fmt.Sprintf("plan-%d", n), Serial: int64(n), Release: wire.ReleasePath("gate", n),
		Manifest: wire.BlobRef{Digest: strings.Repeat(fmt.Sprint(n%10), 64), Size: 10}, Frames: 5, Seconds: 60,
	}
}

func inState(s wire.UpdateState) State {
	st := NewState()
	if st.Step = s; s != wire.Idle {
		st.Target = target(1)
	}
	if s == wire.Rollback {
		st.Reason = wire.ReasonCrash
	}
	return st
}

// updates is the order in which wire lists the states.
func updates() []wire.UpdateState {
	return []wire.UpdateState{
		wire.Idle, wire.Verify, wire.Fetch, wire.Assemble, wire.Check, wire.Probe, wire.Shadow,
		wire.Activate, wire.Probation, wire.Commit, wire.Rollback,
	}
}

func TestTableIsWhole(t *testing.T) {
	var got []wire.UpdateState
	for _, r := range table {
		got = append(got, r.step)
	}
	if diff := cmp.Diff(updates(), got); diff != "" {
		t.Fatal(diff)
	}
	for _, r := range table[1:] {
		st := inState(r.step)
		if DeadlineOf(st) <= 0 {
			t.Errorf("%s has no deadline", r.step)
		}
		if r.restarts < 1 {
			t.Errorf("%s allows no restart", r.step)
		}
		for _, k := range []InputKind{Done, Fail, Deadline, Restart, Exceeded} {
			if !Defined(r.step, k) {
				t.Errorf("%s does not take %s: an update may be stuck", r.step, k)
			}
		}
	}
}

// TestEveryStateAndInput walks over the whole product: each pair is defined,
// and then does what every transition must, or changes nothing.
func TestEveryStateAndInput(t *testing.T) {
	for _, s := range updates() {
		for k := Offer; k < numInputs; k++ {
			st := inState(s)
			n, acts := Next(st, Input{Kind: k, Target: target(2), Reason: wire.ReasonGolden, Message: "why"})
			if !Defined(s, k) {
				if acts != nil || !cmp.Equal(n, st) {
					t.Errorf("%s refuses %s, but changes something", s, k)
				}
				continue
			}
			var do []Do
			for _, a := range acts {
				do = append(do, a.Do)
			}
			want := []Do{DoJournal, DoReport, DoWork}
			if n.Step == wire.Idle {
				want = []Do{DoJournal, DoReport, DoClean}
			}
			if k == Offer || k == Cancel || k == Deadline {
				want = append([]Do{DoStop}, want...)
			}
			if !slices.Equal(do, want) {
				t.Errorf("%s on %s: actions %v, want %v", s, k, do, want)
			}
			if (n.Step == wire.Idle) != (n.Target == nil) {
				t.Errorf("%s on %s: state %s with target %v", s, k, n.Step, n.Target)
			}
			if n.Step == wire.Idle {
				checkOutcome(t, s, k, n)
			}
			if n.Step == wire.Rollback && n.Reason == wire.ReasonNone {
				t.Errorf("%s on %s rolls back without a reason", s, k)
			}
		}
	}
}

func checkOutcome(t *testing.T, s wire.UpdateState, k InputKind, n State) {
	t.Helper()
	r, _ := rowOf(s)
	want := wire.Refused
	switch {
	case s == wire.Commit:
		want = wire.Committed
	case s == wire.Rollback:
		want = wire.RolledBack
	case r.trial:
		t.Errorf("%s on %s leaves the trial without rollback", s, k)
	}
	if n.Last.Outcome != want || (n.Last.Reason == wire.ReasonNone) != (want == wire.Committed) {
		t.Errorf("%s on %s ends %s for %q, want %s", s, k, n.Last.Outcome, n.Last.Reason, want)
	}
}

func TestRestartsAreBounded(t *testing.T) {
	for _, s := range updates()[1:] {
		st, n := inState(s), 0
		for st.Step != wire.Idle {
			if n++; n > 300 {
				t.Fatalf("%s survives %d restarts", s, n)
			}
			if st, _ = Next(st, Input{Kind: Restart}); st.Step == wire.Activate {
				st, _ = Next(st, Input{Kind: Done}) // a release that brings the machine down in its probation
			}
		}
		if st.Last.Reason != wire.ReasonInterrupted && s != wire.Rollback {
			t.Errorf("%s ends for %s", s, st.Last.Reason)
		}
	}
	st := inState(wire.Probation)
	for range 50 {
		st.Clean = true
		if st, _ = Next(st, Input{Kind: Restart}); st.Step != wire.Activate || st.Trials != 0 || st.Clean {
			t.Fatalf("an orderly stop counts: %+v", st)
		}
		st, _ = Next(st, Input{Kind: Done})
	}
}

func TestTheFullModelIsFetchedOnceAtMost(t *testing.T) {
	for _, from := range []wire.UpdateState{wire.Fetch, wire.Assemble} {
		st := inState(from)
		st.Delta = "d"
		st, _ = Next(st, Input{Kind: NoDelta, Message: "why"})
		if st.Step != wire.Fetch || !st.Full || st.Delta != "" {
			t.Fatalf("%s: %+v", from, st)
		}
		st, _ = Next(st, Input{Kind: Done})
		if st, _ = Next(st, Input{Kind: NoDelta, Message: "why"}); st.Last.Reason != wire.ReasonInternal || st.Last.Message != "why" {
			t.Errorf("%s: a second time: %+v", from, st)
		}
		if r, _ := st.Refusal(target(1)); !r.Full {
			t.Error("the next try knows nothing of it")
		}
		if st, _ = Next(st, Input{Kind: Offer, Target: target(1)}); !st.Full {
			t.Error("the next try does not begin with the full model")
		}
		if st, _ = Next(NewState(), Input{Kind: Offer, Target: target(2)}); st.Full {
			t.Error("another release is not given its delta")
		}
	}
}

func TestRefusalsAreRemembered(t *testing.T) {
	end := func(s State, tg *Target, r wire.Reason) State {
		s, _ = Next(s, Input{Kind: Offer, Target: tg})
		s, _ = Next(s, Input{Kind: Fail, Reason: r, Received: 100})
		return s
	}
	s := end(NewState(), target(1), wire.ReasonGolden)
	if r, ok := s.Refusal(target(1)); !ok || !r.ForGood() || r.Reason != wire.ReasonGolden {
		t.Errorf("%+v %v", r, ok)
	}
	again := target(1)
	again.Serial++
	if _, ok := s.Refusal(again); ok {
		t.Error("a new serial does not bring another try")
	}
	again = target(1)
	again.Plan = "other"
	if _, ok := s.Refusal(again); ok {
		t.Error("a new plan does not bring another try")
	}
	for i := 1; i <= MaxTries; i++ {
		s = end(s, target(2), wire.ReasonFetch)
		if r, ok := s.Refusal(target(2)); !ok || r.Tries != i || r.ForGood() != (i == MaxTries) {
			t.Errorf("try %d: %+v", i, r)
		}
	}
	if r, _ := s.Refusal(target(2)); r.Received != 100 {
		t.Errorf("bytes received %d: the budget begins anew with each try", r.Received)
	}
	for n := range 50 {
		s = end(s, target(100+n), wire.ReasonModel)
	}
	if _, ok := s.Refusal(target(149)); len(s.Refusals) != maxRefusals || !ok {
		t.Errorf("%d refusals, newest there: %v", len(s.Refusals), ok)
	}
	if s = end(NewState(), target(1), wire.ReasonSuperseded); len(s.Refusals) != 0 {
		t.Errorf("%+v", s.Refusals)
	}
}

// TestWhateverHappens lets anything happen in any order. The update must always
// end, and the releases must be where they may be.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewState()
		active, candidate, previous := "old", "", "" // slots, as the work would move them
		answers := "old"
		probed := map[string]bool{"old": true}
		kinds := rapid.SliceOfN(rapid.IntRange(int(Offer), int(Exceeded)-1), 0, 200).Draw(t, "inputs")
		reasons := rapid.SampledFrom([]wire.Reason{wire.ReasonFetch, wire.ReasonGolden, wire.ReasonCrash, ""})
		at := 0
		feed := func(k InputKind) {
			in := Input{Kind: k, Target: target(1 + at%5), Reason: reasons.Draw(t, "reason")}
			before := s
			if k == Done { // the work of the state was done
				switch s.Step {
				case wire.Probe:
					probed[s.Target.Release] = true
				case wire.Activate:
					candidate, answers = s.Target.Release, s.Target.Release
				case wire.Commit:
					active, previous, candidate = candidate, active, ""
				case wire.Rollback:
					candidate, answers = "", active
				}
			}
			if k == Restart { // the program begins with what was committed
				answers = active
			}
			s, _ = Next(s, in)
			if s.Step == wire.Idle && before.Step == wire.Rollback {
				candidate, answers = "", active
			}
			switch {
			case !probed[active] || !probed[answers]:
				t.Fatalf("%s answers, %s is active: not probed", answers, active)
			case s.Step == wire.Idle && (answers != active || candidate != ""):
				t.Fatalf("idle, but %s answers, %s is active, %q candidate", answers, active, candidate)
			case before.Step == wire.Probation && s.Step != wire.Commit && active == candidate:
				t.Fatal("the previous release is given up before commit")
			case before.Step != wire.Idle && s.Step == wire.Idle && s.Last.Outcome == "":
				t.Fatalf("%s ended without outcome", before.Step)
			}
			_ = previous
		}
		for _, k := range kinds {
			feed(InputKind(k))
			at++
			if _, err := decodeState(s.encode()); err != nil {
				t.Fatalf("the journal cannot be read back: %v", err)
			}
		}
		// From here on nothing works any more but the clock.
		for n := 0; s.Step != wire.Idle; n++ {
			if n > len(table) {
				t.Fatalf("stuck in %s", s.Step)
			}
			feed(Deadline)
		}
	})
}

func TestJournalThatCannotBeIsRefused(t *testing.T) {
	for _, b := range []string{"", "x", `{"v":2,"step":"idle"}`, `{"v":1,"step":"nowhere"}`, `{"v":1,"step":"fetch"}`, `{"v":1,"step":"idle","target":{}}`} {
		if s, err := decodeState([]byte(b)); err == nil || s.Step != wire.Idle {
			t.Errorf("%q: %+v, %v", b, s, err)
		}
	}
}

func FuzzJournal(f *testing.F) {
	for _, s := range updates() {
		st := inState(s)
		f.Add(st.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		for range len(table) { // whatever it says, it ends
			if s.Step == wire.Idle {
				return
			}
			if DeadlineOf(s) <= 0 {
				t.Fatalf("%s without deadline", s.Step)
			}
			s, _ = Next(s, Input{Kind: Deadline})
		}
		t.Fatalf("stuck in %s", s.Step)
	})
}

func TestDocumentShowsTheTable(t *testing.T) {
	path := filepath.Join("..", "docs", "UPDATE-STATES.md")
	want := render()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/UPDATE-STATES.md differs from the table; run: go test ./ota -run Document -update\n%s", diff)
	}
}

// render writes the table as Markdown.
func render() string {
	var b strings.Builder
	b.WriteString(`# Update states

This page is written by ` + "`go test ./ota -run Document -update`" + ` from the table in
` + "`ota/table.go`" + `, which is what a device does. Do not edit it.

A cell says where the input leads. *→ idle* comes with the outcome and the
reason; *its reason* is that of the failed work, or of the rollback under way.
A dash means that the state does not take the input: nothing changes.

Every state is journalled before its work begins. *Deadline* and *restarts*
bound each state; on trial, restarts are counted over the whole trial. An
orderly stop of the program is not counted.

| state | deadline | restarts |`)
	for k := Offer; k < numInputs; k++ {
		fmt.Fprintf(&b, " %s |", k)
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", int(numInputs)) + "\n")
	for _, r := range table {
		deadline, restarts := "–", "–"
		switch {
		case r.step == wire.Probation:
			deadline = "the plan's"
		case r.deadline > 0:
			deadline = fmt.Sprintf("%.0f min", r.deadline.Minutes())
		}
		if r.restarts > 0 {
			restarts = fmt.Sprint(r.restarts)
		}
		if r.trial {
			restarts += " (trial)"
		}
		fmt.Fprintf(&b, "| **%s** | %s | %s |", r.step, deadline, restarts)
		for _, e := range r.on {
			fmt.Fprintf(&b, " %s |", cell(e))
		}
		b.WriteString("\n")
	}
	b.WriteString(`
*shadow* is entered only when the plan asks for it; otherwise *probe* leads to
*activate* at once.

*no delta* comes once at most: a delta that was fetched, or could not be fetched
although chunks came, does not give the signed model. The event says why, and
that the full model is fetched, if the data budget allows; a second time it
counts as *fail*.

## After the end

| reason | the same plan and release |
|---|---|
| superseded, expired | are tried again when a plan names the release |
`)
	fmt.Fprintf(&b, "| fetch, space, internal | are tried again with growing pauses, %d times in all |\n", MaxTries)
	b.WriteString("| any other | are not tried again until the plan's id or serial changes |\n")
	return b.String()
}

func cell(e edge) string {
	if e.to == "" {
		return "–"
	}
	s := "→ " + string(e.to)
	switch {
	case e.outcome == wire.Committed:
		return s + ", committed"
	case e.outcome != "" && e.reason != "":
		return s + fmt.Sprintf(", %s: %s", e.outcome, e.reason)
	case e.outcome != "":
		return s + fmt.Sprintf(", %s: *its reason*", e.outcome)
	case e.reason != "":
		return s + ": " + string(e.reason)
	}
	return s
}
