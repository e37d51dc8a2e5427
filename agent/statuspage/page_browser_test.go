package statuspage

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
)

const pictureShown = `[...document.querySelectorAll("figure img")].every((i) => i.src.startsWith("blob:") && i.naturalWidth > 0)`

// moments are states of the device that the page must tell apart at a glance.
func moments() []struct {
	name string
	edit func(*Snapshot)
} {
	second := wire.CameraState{Name: "yard", State: "stalled", FPS: 0, Width: 640, Height: 480, Restarts: 4, Error: "no frame for 5s: rtsp://10.0.0.7/yard does not answer"}
	return []struct {
		name string
		edit func(*Snapshot)
	}{
		{"working", func(*Snapshot) {}},
		{"fetching", func(s *Snapshot) {
			s.State.Candidate = &wire.ReleaseRef{Path: "release/gate/8"}
			s.State.Update = wire.UpdateStatus{State: wire.Fetch, Release: "release/gate/8", Done: 1_310_720, Total: 3_664_512}
			s.History = s.History[:2] // nothing with a reason or a release
		}},
		{"refused", func(s *Snapshot) {
			s.State.Update = wire.UpdateStatus{State: wire.Idle, Release: "release/gate/8", Outcome: wire.Refused, Reason: wire.ReasonGolden, Message: "golden input 2: class 4 with 0.91, signed is class 3 with 0.88", Finished: noon.Add(-time.Minute).UnixMilli()}
			s.History = slices.Insert(story(), 0, Entry{At: noon.Add(-time.Minute), Event: wire.Event{Kind: wire.EventUpdate, Release: "release/gate/8", From: wire.Probe, To: wire.Idle, Outcome: wire.Refused, Reason: wire.ReasonGolden, Message: "golden input 2: class 4 with 0.91, signed is class 3 with 0.88"}})
		}},
		{"trouble", func(s *Snapshot) {
			s.Connected, s.LinkError = false, "dial tcp 10.0.0.2:8883: connect: connection refused; next try in 8s"
			s.State.Healthy, s.State.Problems = false, []string{"camera yard is stalled"}
			s.State.Config = `unknown key "camras" in line 4`
			s.State.Update = wire.UpdateStatus{State: wire.Rollback, Release: "release/gate/8"}
			s.Cameras = append(s.Cameras, Camera{CameraState: second, Source: "rtsp://10.0.0.7/yard", Backend: "FFMPEG", Frames: 20311, Results: 20110, Stale: 12, HasResult: true, Seq: 20310, AgeMicros: 51000, SinceMicros: 94e6, Top: []infer.Score{{Label: "Bag", P: .61}, {Label: "Sneaker", P: .3}}, Unenforced: []string{"landlock: network"}})
			s.Model.Restarts, s.Model.Fallback = 2, "edgetpu: no device found; answers on the CPU"
			s.Model.Unenforced = []string{"landlock: network rules need a newer kernel"}
			s.Outbox = Outbox{Waiting: 214, Dropped: 3}
		}},
		{"newcomer", func(s *Snapshot) {
			*s = Snapshot{
				Now: noon, Started: noon.Add(-9 * time.Second), Device: "gate-north-02", Cameras: s.Cameras,
				LinkError: "not a member of a fleet yet: put an enrolment token (drover enroll) into /var/lib/drover/enrolment-token",
				State:     wire.State{Agent: "0.1.0", Arch: "arm64", Update: wire.UpdateStatus{State: wire.Idle}, Assurance: "software", Freshness: "stale", Healthy: true},
				Model:     Model{ModelState: wire.ModelState{State: "none"}},
			}
			s.Cameras[0].HasResult, s.Cameras[0].Top = false, nil
		}},
	}
}

func TestPageInABrowser(t *testing.T) {
	f := &fake{snapshot: healthy(), preview: picture}
	s := start(t, f)
	b := openBrowser(t)
	b.do(t, screen(1360, 900, "light"), chromedp.Navigate(s.URL()))
	for _, m := range moments() {
		snapshot := healthy()
		m.edit(&snapshot)
		f.change(func(s *Snapshot) { *s = snapshot })
		want := s.text.describe(snapshot, "", defaultHistory)
		b.eventually(t, `document.title === `+quote(want.Title))
		b.eventually(t, `document.querySelector(".headline").innerText.startsWith(`+quote(want.Update.Headline)+`)`)
		b.eventually(t, `[...document.querySelectorAll(".camera[data-is=running] img")].every((i) => i.naturalWidth > 0)`)
		snapshot.Now = snapshot.Now.Add(time.Second) // one more round, over elements that are there already
		f.change(func(s *Snapshot) { *s = snapshot })
		b.eventually(t, `document.querySelector(".now").innerText.includes("12:00:01")`)
		if high := ask[[]string](t, b, `[...document.querySelectorAll("th")].filter((h) => h.clientHeight > 40).map((h) => h.textContent)`); len(high) > 0 {
			t.Errorf("%s: column heads are broken: %q", m.name, high)
		}
		b.shoot(t, m.name+"-light")
		b.do(t, screen(1360, 900, "dark"))
		b.shoot(t, m.name+"-dark")
		b.do(t, screen(390, 844, "light"))
		if ask[bool](t, b, `document.documentElement.scrollWidth > innerWidth`) {
			t.Errorf("%s: the page is wider than a phone", m.name)
		}
		b.shoot(t, m.name+"-phone")
		b.do(t, screen(1360, 900, "light"))

		// What the script made of the old page is what the server renders anew.
		live := b.text(t)
		b.do(t, chromedp.Navigate(s.URL()))
		if fresh := b.text(t); live != fresh {
			t.Errorf("%s: the script says\n%s\nthe server says\n%s", m.name, live, fresh)
		}
	}
	if out := b.foreignRequests(t, s.URL()); len(out) > 0 {
		t.Errorf("requests to others: %q", out)
	}
}

func TestPageWithoutScripts(t *testing.T) {
	f := &fake{snapshot: healthy(), preview: picture}
	s := start(t, f)
	b := openBrowser(t)
	b.do(t, command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), screen(1360, 900, "light"), chromedp.Navigate(s.URL()))
	for _, want := range []string{"release/gate/7", "Dress", "87.3%", "Scripts are off", "orchard"} {
		if text := b.text(t); !contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	b.shoot(t, "noscript")
}

func TestHostileTextStaysText(t *testing.T) {
	const evil = `</td></script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">`
	snapshot := healthy()
	snapshot.Device, snapshot.Fleet, snapshot.Broker = evil, evil, `javascript:window.hacked=3`
	snapshot.State.Problems, snapshot.State.Healthy = []string{evil}, false
	snapshot.Cameras[0].Name = `"><svg onload="window.hacked=4">`
	snapshot.Cameras[0].Top[0].Label = evil
	snapshot.Cameras = append(snapshot.Cameras, snapshot.Cameras[0]) // twice the same name
	snapshot.Model.Fallback, snapshot.Model.Digest = evil, evil
	snapshot.State.Update.Message = evil
	snapshot.History[0].Event.Message, snapshot.History[0].Event.Kind = evil, evil
	f := &fake{snapshot: healthy(), preview: picture}
	s := start(t, f)
	b := openBrowser(t)
	b.do(t, chromedp.Navigate(s.URL()))
	f.change(func(s *Snapshot) { *s = snapshot })
	b.eventually(t, `document.querySelector("h1").textContent === `+quote(evil)) // by the script
	f.change(func(s *Snapshot) { s.Now = noon.Add(time.Second) })
	b.eventually(t, `document.querySelector(".now").innerText.includes("12:00:01")`)
	if n := ask[int](t, b, `document.querySelectorAll(".camera").length`); n != 2 {
		t.Errorf("%d cameras after another round", n)
	}
	b.do(t, chromedp.Navigate(s.URL())) // by the server
	b.eventually(t, `document.querySelector("figure img").naturalWidth > 0`)
	hacked := ask[bool](t, b, `window.hacked !== undefined`)
	elements := ask[int](t, b, `document.querySelectorAll("[onerror],[onload],script:not([src])").length`)
	if hacked || elements != 0 {
		t.Errorf("hacked: %v, elements from data: %d", hacked, elements)
	}
}

func TestPreviewsFollowVisibilityAndFaults(t *testing.T) {
	blocked := make(chan string, 100)
	snapshot := healthy()
	for _, name := range []string{"dead", "stuck"} {
		c := snapshot.Cameras[0]
		c.CameraState.Name = name
		snapshot.Cameras = append(snapshot.Cameras, c)
	}
	f := &fake{snapshot: snapshot, preview: func(ctx context.Context, camera string, width int) ([]byte, error) {
		switch camera {
		case "dead":
			return nil, errors.New("the camera's child does not answer")
		case "stuck":
			blocked <- camera
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return picture(ctx, camera, width)
	}}
	s := start(t, f)
	b := openBrowser(t)
	b.do(t, screen(1360, 900, "light"), chromedp.Navigate(s.URL()))
	<-blocked
	b.eventually(t, `document.querySelectorAll("img[data-lost]").length === 2`)
	b.eventually(t, `document.querySelector('[data-key="door"] img').src.startsWith("blob:")`)
	ask[string](t, b, `window.first = document.querySelector('[data-key="door"] img').src`)
	b.eventually(t, `document.querySelector('[data-key="door"] img').src !== window.first`) // goes on beside the stuck one

	// Nobody looks: nothing is fetched any more.
	ask[int](t, b, `Object.defineProperty(document, "hidden", {configurable: true, get: () => window.away === true}); window.away = true; window.asked = 0;
		window.real = window.fetch; window.fetch = (...a) => { window.asked++; return window.real(...a); }; 0`)
	time.Sleep(1500 * time.Millisecond) // what was under way ends
	ask[int](t, b, `window.asked = 0`)
	time.Sleep(1500 * time.Millisecond)
	if n := ask[int](t, b, `window.asked`); n != 0 {
		t.Errorf("%d requests while nobody looks", n)
	}
	ask[int](t, b, `window.away = false; document.dispatchEvent(new Event("visibilitychange")); 0`)
	b.eventually(t, `window.asked > 2`)
}

func TestPageTellsThatTheDeviceIsGone(t *testing.T) {
	f := &fake{snapshot: healthy(), preview: picture}
	s := start(t, f)
	b := openBrowser(t)
	b.do(t, screen(1360, 900, "light"), chromedp.Navigate(s.URL()))
	b.eventually(t, pictureShown)
	s.http.Close()
	b.eventually(t, `!document.getElementById("lost").hidden && document.documentElement.hasAttribute("data-lost")`)
	b.shoot(t, "lost")
}

// dim lists texts whose contrast with what lies under them is below 4.5.
const dim = `(() => {
	const parse = (c) => c.match(/[\d.]+/g).map(Number);
	const shine = (c) => { const [r, g, b] = parse(c).map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
	const under = (el) => { for (; el; el = el.parentElement) { const c = getComputedStyle(el).backgroundColor; const p = parse(c); if (p.length < 4 || p[3] === 1) return c; } return "rgb(255,255,255)"; };
	return [...document.body.querySelectorAll("*")].filter((el) => el.offsetParent && [...el.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((el) => {
		const a = shine(getComputedStyle(el).color), b = shine(under(el));
		return { el, ratio: (Math.max(a, b) + .05) / (Math.min(a, b) + .05) };
	}).filter((x) => x.ratio < 4.5).map((x) => x.ratio.toFixed(2) + " " + x.el.className + ": " + x.el.textContent);
})()`

func TestEverybodyCanReadIt(t *testing.T) {
	f := &fake{snapshot: healthy(), preview: picture}
	s := start(t, f)
	b := openBrowser(t)
	for _, m := range moments() {
		snapshot := healthy()
		m.edit(&snapshot)
		f.change(func(s *Snapshot) { *s = snapshot })
		for _, scheme := range []string{"light", "dark"} {
			b.do(t, screen(1360, 900, scheme), chromedp.Navigate(s.URL()))
			if n := ask[int](t, b, `document.body.querySelectorAll("*").length`); n < 50 {
				t.Fatalf("%s: only %d elements", m.name, n)
			}
			for _, text := range ask[[]string](t, b, dim) {
				t.Errorf("%s, %s: %s", m.name, scheme, text)
			}
		}
		if n := ask[int](t, b, `[...document.querySelectorAll("section")].filter((s) => !s.getAttribute("aria-label") && !document.getElementById(s.getAttribute("aria-labelledby"))).length`); n != 0 {
			t.Errorf("%s: %d sections without a name", m.name, n)
		}
		if n := ask[int](t, b, `[...document.images].filter((i) => !i.alt).length`); n != 0 {
			t.Errorf("%s: %d pictures without alt text", m.name, n)
		}
		if live := ask[[]string](t, b, `[...document.querySelectorAll("[aria-live]")].map((e) => e.id)`); !slices.Equal(live, []string{"problems"}) {
			t.Errorf("%s: live regions %q", m.name, live)
		}
	}
}
