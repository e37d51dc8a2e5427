package statuspage

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// words is one moment as the page says it: every text is ready to be shown.
// The template renders it on the server and the script puts the same texts
// into the same elements later, so that a page without scripts says the same
// and no decision is made twice. Its JSON is for the page alone.
type words struct {
	Title, Device, About, AsOf, Zone string
	Verdict, Headline                string // Verdict: ok, warn, bad
	Link                             badge
	Problems                         []line
	Cameras                          []cameraWords
	NoCameras                        string
	Release, Model, LinkFacts        []fact
	DeviceFacts                      []fact
	Update                           updateWords
	History                          []historyWords
	NoHistory, Older                 string
}

type badge struct{ Is, Text string }

type line struct{ Key, Is, Text string }

// fact is one labelled figure. Is says how it looks: "", ok, warn, bad, digest.
type fact struct{ Key, Label, Text, Title, Is, Tab string }

type cameraWords struct {
	Key, Is, State, Preview, Alt, Error string
	Answer, AnswerIs                    string
	Top                                 []scoreWords
	Facts                               []fact
}

// scoreWords is one bar; Width is a CSS length relative to certainty.
type scoreWords struct{ Key, Label, Percent, Width string }

type historyWords struct{ Key, At, ISO, Kind, Release, What, Reason, Is string }

// defaultHistory is how many entries a page shows until it is asked for all.
const defaultHistory = 30

// oldAnswer is when an answer no longer tells what the camera sees.
const oldAnswer = 3 * time.Second

func (l language) describe(s Snapshot, exposed string, history int) words {
	w := words{
		Device: s.Device, Zone: l.t("page.zone", s.Now.Format("MST")), AsOf: l.t("page.asof", clock(s.Now, s.Now)),
		About:   l.t("page.about", s.State.Agent, s.State.Arch, l.elapsed(s.Now.Sub(s.Started))),
		Release: l.releaseFacts(s), Model: l.modelFacts(s.Model), LinkFacts: l.linkFacts(s), DeviceFacts: l.deviceFacts(s),
		Update: l.update(s), Problems: l.problems(s, exposed),
	}
	if s.Fleet != "" { // otherwise the verdict says it
		w.Link = l.link(s)
	}
	w.Verdict, w.Headline = l.verdict(s)
	w.Title = l.t("page.title", w.Headline, s.Device)
	for _, c := range s.Cameras {
		w.Cameras = append(w.Cameras, l.camera(c))
	}
	if len(s.Cameras) == 0 {
		w.NoCameras = l.t("camera.none")
	}
	for i, e := range s.History {
		if i == history {
			w.Older = l.t("history.older", strconv.Itoa(len(s.History)))
			break
		}
		w.History = append(w.History, l.entry(e, s.Now, i))
	}
	if len(s.History) == 0 {
		w.NoHistory = l.t("history.none")
	}
	return w
}

// verdict is the one glance: the worst of what holds comes first.
func (l language) verdict(s Snapshot) (is, headline string) {
	switch {
	case !s.State.Healthy:
		return "bad", l.t("verdict.bad")
	case s.Fleet == "":
		return "warn", l.t("verdict.nofleet")
	case !s.Connected:
		return "warn", l.t("verdict.offline")
	case s.State.Freshness != "current":
		return "warn", l.t("verdict.stale")
	case s.Model.Release == "" && s.State.Active == nil:
		return "warn", l.t("verdict.norelease")
	case s.State.Update.State != wire.Idle && s.State.Update.State != "":
		return "ok", l.t("verdict.updating")
	}
	return "ok", l.t("verdict.ok")
}

// link is the state of the connection.
func (l language) link(s Snapshot) badge {
	switch {
	case s.Fleet == "":
		return badge{"warn", l.t("link.nofleet")}
	case s.Connected:
		return badge{"ok", l.t("link.on")}
	}
	return badge{"warn", l.t("link.off")}
}

// problems are told in words, each once, the gravest first.
func (l language) problems(s Snapshot, exposed string) []line {
	var out []line
	say := func(is, text string) {
		if text != "" && !slices.ContainsFunc(out, func(o line) bool { return o.Text == text }) {
			out = append(out, line{is + " " + text, is, text})
		}
	}
	for _, p := range s.State.Problems {
		say("bad", p)
	}
	if !s.State.Healthy && len(out) == 0 {
		say("bad", l.t("problem.unhealthy"))
	}
	if s.State.Config != "" {
		say("warn", l.t("problem.config", s.State.Config))
	}
	switch {
	case s.Fleet == "" && s.LinkError == "":
		say("warn", l.t("problem.join"))
	case s.Fleet == "":
		say("warn", s.LinkError) // says what to do, or why joining failed
	case !s.Connected && s.LinkError == "":
		say("warn", l.t("problem.link", l.t("problem.link.why")))
	case !s.Connected:
		say("warn", l.t("problem.link", s.LinkError))
	}
	if s.Fleet != "" && s.State.Freshness != "current" {
		say("warn", l.t("problem.stale"))
	}
	say("warn", s.Outbox.Problem)
	if exposed != "" {
		say("warn", l.t("problem.exposed", exposed))
	}
	return out
}

func (l language) camera(c Camera) cameraWords {
	w := cameraWords{
		Key: c.Name, Is: c.State, State: l.word("state.", c.State), Alt: l.t("camera.alt", c.Name), Error: c.Error,
		Facts: l.cameraFacts(c), Answer: l.t("camera.noanswer"),
	}
	if c.State == "running" {
		w.Preview = "/preview/" + url.PathEscape(c.Name) + ".jpg"
	}
	if !c.HasResult {
		return w
	}
	since := time.Duration(c.SinceMicros) * time.Microsecond
	w.Answer = l.t("camera.answer", count(c.Seq), micros(c.AgeMicros), l.since(since))
	if since > oldAnswer {
		w.AnswerIs = "old"
	}
	for rank, score := range c.Top {
		label := score.Label
		if label == "" {
			label = l.t("camera.class", strconv.Itoa(score.Class))
		}
		share := min(max(finite(float64(score.P)), 0), 1)
		text := percent(float32(share))
		w.Top = append(w.Top, scoreWords{strconv.Itoa(rank), label, text, strconv.FormatFloat(share*100, 'f', 1, 64) + "%"})
	}
	return w
}

// since tells tenths while they matter.
func (l language) since(d time.Duration) string {
	if d < 10*time.Second {
		return l.t("unit.seconds", strconv.FormatFloat(max(d.Seconds(), 0), 'f', 1, 64))
	}
	return l.elapsed(d)
}

func (l language) entry(e Entry, now time.Time, i int) historyWords {
	ev := e.Event
	key := ev.Boot + " " + strconv.FormatUint(ev.Seq, 10)
	if ev.Boot == "" {
		key = strconv.FormatInt(e.At.UnixNano(), 10) + " " + strconv.Itoa(i)
	}
	h := historyWords{
		Key: key, At: clock(e.At, now), ISO: e.At.Format(time.RFC3339), Kind: string(ev.Kind), Release: ev.Release, Reason: string(ev.Reason),
	}
	var parts []string
	switch {
	case ev.Outcome != "":
		parts = append(parts, string(ev.Outcome))
		h.Is = outcomeLook(ev.Outcome)
	case ev.To != "":
		parts = append(parts, l.word("step.", string(ev.From))+" → "+l.word("step.", string(ev.To)))
	case ev.Reason != "":
		h.Is = "bad"
	}
	if ev.Message != "" {
		parts = append(parts, ev.Message)
	}
	h.What = strings.Join(parts, ": ")
	return h
}

func outcomeLook(o wire.Outcome) string {
	if o == wire.Committed {
		return "ok"
	}
	return "bad"
}
