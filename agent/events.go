package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
)

// maxHistory is how many events the status page can look back on.
const maxHistory = 200

// history keeps the newest events of this boot.
type history struct {
	mu      sync.Mutex
	entries []statuspage.Entry
}

func (h *history) add(e statuspage.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.entries) == maxHistory {
		h.entries = slices.Delete(h.entries, 0, 1)
	}
	h.entries = append(h.entries, e)
}

// newest returns the entries, newest first.
func (h *history) newest() []statuspage.Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.entries)
	slices.Reverse(out)
	return out
}

func (a *Agent) header() wire.Header {
	return wire.Header{V: wire.Version, Boot: a.boot, Seq: a.seq.Add(1), At: time.Now().UnixMilli()}
}

// event tells one thing that happened: to the log, the page, and the hub. It
// never blocks.
func (a *Agent) event(ev wire.Event) {
	ev.Header = a.header()
	const maxText = 1024
	if len(ev.Message) > maxText {
		ev.Message = ev.Message[:maxText] + "…"
	}
	a.history.add(statuspage.Entry{At: time.Now(), Event: ev})
	a.log.Info("event", "kind", ev.Kind, "release", ev.Release, "from", ev.From, "to", ev.To, "outcome", ev.Outcome, "reason", ev.Reason, "message", ev.Message)
	if m := a.member.Load(); m != nil {
		a.put(wire.Topics{Fleet: m.fleet}.Device(a.cfg.Device, wire.LeafEvent), wire.Encode(ev))
	}
	a.changed()
}

// put queues a message that must arrive.
func (a *Agent) put(topic string, payload []byte) {
	if err := a.outbox.Put(topic, payload); err != nil {
		a.log.Error("queue a message", "topic", topic, "error", err)
	}
}

// changed asks for a new State soon.
func (a *Agent) changed() {
	select {
	case a.nudge <- struct{}{}:
	default:
	}
}
