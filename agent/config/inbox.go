package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// Inbox is where releases may come by hand (agent/inbox).
type Inbox struct {
	Dir   string   `yaml:"dir"`   // folder for bundles; empty: inbox in the state folder; "off": no inbox, no media
	Media []string `yaml:"media"` // folders below which sticks are mounted, at most 8
	// Patience is how long a broken file may lie there unchanged; default 2 min.
	Patience time.Duration `yaml:"patience"`
	Keep     int           `yaml:"keep"` // files kept of those done, and of those refused; default 2
}

// Off says that there is no inbox.
func (i Inbox) Off() bool { return i.Dir == "off" }

func (i Inbox) check() error {
	if len(i.Media) > 8 {
		return fmt.Errorf("media: %d folders, at most 8", len(i.Media))
	}
	for _, m := range i.Media {
		if !filepath.IsAbs(m) {
			return fmt.Errorf("media: %q is no absolute path", m)
		}
	}
	if i.Patience < time.Second {
		return fmt.Errorf("patience: %v, at least 1s", i.Patience)
	}
	if i.Keep < 1 || i.Keep > 100 {
		return fmt.Errorf("keep: %d, 1 to 100", i.Keep)
	}
	return nil
}

func (i Inbox) same(o Inbox) bool {
	return i.Dir == o.Dir && slices.Equal(i.Media, o.Media) && i.Patience == o.Patience && i.Keep == o.Keep
}
