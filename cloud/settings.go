package cloud

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"github.com/droverhq/drover/agent/wire"
)

// settingsFile is what makes a folder a fleet.
const settingsFile = "fleet.yaml"

// ErrSettings is wrapped by complaints about fleet.yaml.
var ErrSettings = errors.New("cloud: fleet.yaml")

// Settings are the fleet's name and addresses.
type Settings struct {
	Fleet  string   `yaml:"fleet"`
	Broker Endpoint `yaml:"broker"` // MQTT over TLS
	Enroll Endpoint `yaml:"enroll"` // HTTPS
	// External is the host:port of a broker the operator runs (drover
	// broker-config writes its configuration); empty: the hub runs its own.
	External string `yaml:"external_broker,omitempty"`
}

// Endpoint is one service of the hub.
type Endpoint struct {
	Listen string `yaml:"listen"` // host:port
	Public string `yaml:"public"` // host:port by which devices reach it
}

// Check names the first setting that is wrong.
func (s *Settings) Check() error {
	if !wire.ValidName(s.Fleet) {
		return fmt.Errorf("%w: fleet: %q is no name (a–z, 0–9 and hyphens, at most 63)", ErrSettings, s.Fleet)
	}
	for key, addr := range map[string]string{
		"broker.listen": s.Broker.Listen, "broker.public": s.Broker.Public,
		"enroll.listen": s.Enroll.Listen, "enroll.public": s.Enroll.Public,
	} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%w: %s: %q is no host:port", ErrSettings, key, addr)
		}
	}
	if s.External != "" {
		if _, _, err := net.SplitHostPort(s.External); err != nil {
			return fmt.Errorf("%w: external_broker: %q is no host:port", ErrSettings, s.External)
		}
	}
	return nil
}

func loadSettings(dir string) (Settings, error) {
	var s Settings
	b, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrNoFleet, err)
	}
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&s); err != nil {
		return s, fmt.Errorf("%w: %s", ErrSettings, yaml.FormatError(err, false, false))
	}
	return s, s.Check()
}

func (s *Settings) save(dir string) error {
	b, err := yaml.Marshal(s)
	if err != nil {
		return fmt.Errorf("cloud: fleet.yaml: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(dir, settingsFile), b, 0o600); err != nil {
		return fmt.Errorf("cloud: fleet.yaml: %w", err)
	}
	return nil
}
