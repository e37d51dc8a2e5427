package statuspage

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/droverhq/drover/agent/wire"
)

// facts collects labelled figures; what is empty is left out.
type facts struct {
	language
	list []fact
}

func (f *facts) add(key, text, is string) {
	if text == "" {
		return
	}
	one := fact{Key: key, Label: f.t(key), Text: text, Is: is}
	if title, ok := f.language[key+".title"]; ok {
		one.Title = title
	}
	if is == "digest" { // cut short by the style; the whole text is there to be copied
		one.Title, one.Tab = text, "0"
	}
	f.list = append(f.list, one)
}

// alarm is a look that is worn from the first on.
func alarm(n uint64, is string) string {
	if n == 0 {
		return ""
	}
	return is
}

func look(bad bool, is string) string {
	if bad {
		return is
	}
	return ""
}

func (l language) cameraFacts(c Camera) []fact {
	f := facts{language: l}
	f.add("camera.fps", l.t("camera.fps.value", rate(c.FPS)), "")
	if c.Width > 0 {
		f.add("camera.size", fmt.Sprintf("%d × %d", c.Width, c.Height), "")
	}
	f.add("camera.frames", count(c.Frames), "")
	f.add("camera.results", count(c.Results), "")
	f.add("camera.dropped", count(c.Dropped), "")
	f.add("camera.stale", count(c.Stale), look(c.Stale > c.Results/100, "warn"))
	f.add("camera.restarts", strconv.Itoa(c.Restarts), alarm(uint64(max(c.Restarts, 0)), "warn"))
	source := c.Source
	if c.Backend != "" {
		source += " (" + c.Backend + ")"
	}
	f.add("camera.source", source, "long")
	f.add("camera.unenforced", strings.Join(c.Unenforced, ", "), "long")
	return f.list
}

func (l language) releaseFacts(s Snapshot) []fact {
	f := facts{language: l}
	path := s.Model.Release
	if path == "" && s.State.Active != nil {
		path = s.State.Active.Path
	}
	if path == "" {
		path = l.t("release.none")
	}
	f.add("release.path", path, "strong")
	variant := s.Model.Variant
	if a := s.State.Active; a != nil {
		f.add("release.manifest", a.Digest, "digest")
		if variant == "" {
			variant = a.Variant
		}
	}
	f.add("release.model", s.Model.Digest, "digest")
	f.add("release.variant", variant, "")
	f.add("release.delegate", s.Model.Delegate, "")
	if s.Model.Size > 0 {
		f.add("release.size", size(s.Model.Size), "")
	}
	if n := len(s.Model.Labels); n > 0 {
		f.add("release.classes", strconv.Itoa(n), "")
	}
	for _, r := range []struct {
		key string
		ref *wire.ReleaseRef
	}{{"release.candidate", s.State.Candidate}, {"release.previous", s.State.Previous}} {
		if r.ref != nil {
			f.add(r.key, r.ref.Path, "")
		}
	}
	return f.list
}

func (l language) modelFacts(m Model) []fact {
	f := facts{language: l}
	is := map[string]string{"running": "ok", "failed": "bad", "starting": "warn"}[m.State]
	f.add("model.state", l.word("state.", m.State), is)
	f.add("model.error", m.Error, "bad")
	if m.State == "none" {
		return f.list
	}
	f.add("model.fallback", m.Fallback, "warn")
	if m.InvokeP50 > 0 {
		f.add("model.p50", micros(m.InvokeP50), "")
	}
	if m.InvokeP99 > 0 {
		f.add("model.p99", micros(m.InvokeP99), "")
	}
	f.add("model.fps", l.t("camera.fps.value", rate(m.FPS)), "")
	f.add("model.results", count(m.Results), "")
	f.add("model.errors", count(m.Errors), alarm(m.Errors, "warn"))
	f.add("model.restarts", strconv.Itoa(m.Restarts), alarm(uint64(max(m.Restarts, 0)), "warn"))
	switch {
	case len(m.Unenforced) > 0:
		f.add("model.unenforced", strings.Join(m.Unenforced, ", "), "warn")
	case m.State == "running":
		f.add("model.unenforced", l.t("model.unenforced.none"), "")
	}
	return f.list
}

func (l language) linkFacts(s Snapshot) []fact {
	f := facts{language: l}
	b := l.link(s)
	f.add("link.state", b.Text, b.Is)
	if !s.Connected && s.Fleet != "" {
		f.add("link.error", s.LinkError, "")
	}
	f.add("link.fleet", s.Fleet, "")
	f.add("link.broker", s.Broker, "")
	f.add("link.outbox", l.t("link.outbox.value", strconv.Itoa(s.Outbox.Waiting)), "")
	if s.Outbox.Dropped > 0 {
		f.add("link.dropped", l.t("link.outbox.value", strconv.FormatInt(s.Outbox.Dropped, 10)), "warn")
	}
	f.add("link.outboxerror", s.Outbox.Problem, "bad")
	if s.Fetch.Bytes == 0 {
		return f.list
	}
	f.add("link.bytes", size(int64(min(s.Fetch.Bytes, 1<<62))), "")
	f.add("link.chunks", l.t("link.chunks.value", count(s.Fetch.Good), count(s.Fetch.Corrupt)), alarm(s.Fetch.Corrupt, "warn"))
	return f.list
}

func (l language) deviceFacts(s Snapshot) []fact {
	f := facts{language: l}
	f.add("device.name", s.Device, "")
	if s.Fleet != "" {
		if s.State.Freshness == "current" {
			f.add("device.freshness", l.t("device.fresh"), "ok")
		} else {
			f.add("device.freshness", l.t("device.stale"), "warn")
		}
		f.add("device.root", l.t("device.root.value", strconv.FormatInt(s.State.Root, 10)), "")
	}
	f.add("device.assurance", l.word("device.assurance.", s.State.Assurance), "")
	f.add("device.epoch", strconv.FormatUint(s.State.Epoch, 10), "")
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(s.State.Labels)) {
		labels = append(labels, k+"="+s.State.Labels[k])
	}
	f.add("device.labels", strings.Join(labels, ", "), "")
	return f.list
}
