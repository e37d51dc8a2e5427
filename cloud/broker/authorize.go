package broker

import (
	"errors"
	"fmt"
	"strings"

	"github.com/droverhq/drover/agent/wire"
)

// HubName is the common name of the hub's certificate (identity.HubName).
const HubName = "hub"

// Action is what a client wants to do with a topic or filter.
type Action string

// The actions.
const (
	Read  Action = "read"  // subscribe to a filter, or be sent a topic
	Write Action = "write" // publish to a topic, or leave a will on it
)

// Identity is who a client is, by its verified certificate.
type Identity struct {
	Fleet string
	Name  string // common name
}

// Hub says whether this is the hub.
func (i Identity) Hub() bool { return i.Name == HubName }

// ErrDenied is wrapped by what Authorize returns.
var ErrDenied = errors.New("broker: not allowed")

// Authorize says whether a client may read a filter (or topic), or write a
// topic. It is pure, and denies what it does not know. A filter is allowed only
// when every topic it matches is.
func Authorize(id Identity, action Action, topic string) error {
	base := wire.Prefix + id.Fleet + "/"
	rest, inside := strings.CutPrefix(topic, base)
	denied := fmt.Errorf("%w: %q may not %s %q", ErrDenied, id.Name, action, topic)
	if !wire.ValidName(id.Fleet) || !wire.ValidName(id.Name) || !inside || rest == "" || len(topic) > 256 || strings.ContainsRune(topic, 0) {
		return denied
	}
	if action == Write && strings.ContainsAny(topic, "+#") {
		return denied
	}
	switch {
	case action != Read && action != Write:
		return denied
	case id.Hub():
		return nil
	case action == Write && writable(id, topic):
		return nil
	case action == Read && readable(id, rest):
		return nil
	}
	return denied
}

func writable(id Identity, topic string) bool {
	t, err := wire.ParseTopic(topic)
	if err != nil || t.Device != id.Name {
		return false
	}
	switch t.Leaf {
	case wire.LeafOnline, wire.LeafState, wire.LeafEvent, wire.LeafTelemetry, wire.LeafGet, wire.LeafSample, wire.LeafRenew:
		return true
	}
	return false
}

// readable needs no look at wildcards: all that begins with one of these
// literal prefixes may be read, and "+" or "#" never matches outside of it.
func readable(id Identity, rest string) bool {
	own := "d/" + wire.Shard(id.Name) + "/" + id.Name + "/"
	switch rest {
	case own + string(wire.LeafDesired), own + string(wire.LeafCommand), own + string(wire.LeafCertificate):
		return true
	}
	for _, p := range []string{"trust/", "blob/", own + string(wire.LeafBlob) + "/"} {
		if below, ok := strings.CutPrefix(rest, p); ok && below != "" {
			return true
		}
	}
	return false
}

// Retainable says whether a client may leave a retained message on a topic
// that it may write.
func Retainable(id Identity, topic string) bool {
	if id.Hub() {
		return true
	}
	t, err := wire.ParseTopic(topic)
	return err == nil && (t.Leaf == wire.LeafOnline || t.Leaf == wire.LeafState)
}

// authorizeWill checks a last will: one that a client cannot publish itself
// must not be published in its name.
func authorizeWill(id Identity, topic string, retain bool) error {
	if err := Authorize(id, Write, topic); err != nil {
		return fmt.Errorf("last will: %w", err)
	}
	t, err := wire.ParseTopic(topic)
	if !id.Hub() && (err != nil || t.Leaf != wire.LeafOnline) {
		return fmt.Errorf("last will: %w: a device's stands on its topic %s, not %q", ErrDenied, wire.LeafOnline, topic)
	}
	if retain && !Retainable(id, topic) {
		return fmt.Errorf("last will: %w: retained on %q", ErrDenied, topic)
	}
	return nil
}
