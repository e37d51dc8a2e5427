package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/droverhq/drover/ota/trust/tufcore"
)

// floorFile holds the versions accepted so far. Like on a device it is apart
// from the metadata, so that losing a file of those loses no protection.
const floorFile = "floor"

// folder is where metadata lies, one file per role, as the repository sent it.
type folder string

// quoted makes one path element of any target's name. It begins with no dot:
// nothing leads to another folder.
func quoted(name string) string {
	q := url.PathEscape(name)
	if rest, ok := strings.CutPrefix(q, "."); ok {
		return "%2E" + rest
	}
	return q
}

// document is the name of a role's file, whatever the role is called.
func document(role string) string { return url.PathEscape(role) + ".json" }

func (f folder) path(role string) string { return filepath.Join(string(f), document(role)) }

// load is nil when there is no such file.
func (f folder) load(role string) []byte {
	b, err := os.ReadFile(f.path(role))
	if err != nil {
		return nil
	}
	return b
}

func (f folder) save(role string, raw []byte) error {
	if err := replace(f.path(role), raw); err != nil {
		return fmt.Errorf("save %s: %w", role, err)
	}
	return nil
}

func (f folder) loadFloor() (tufcore.Floor, error) {
	b, err := os.ReadFile(filepath.Join(string(f), floorFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no metadata here yet; run init first")
	}
	if err != nil {
		return nil, fmt.Errorf("load floor: %w", err)
	}
	floor := tufcore.Floor{}
	if err := json.Unmarshal(b, &floor); err != nil {
		return nil, fmt.Errorf("load floor: %w", err)
	}
	return floor, nil
}

func (f folder) saveFloor(floor tufcore.Floor) error {
	b, err := json.Marshal(floor.Clone())
	if err != nil {
		return fmt.Errorf("save floor: %w", err)
	}
	if err := replace(filepath.Join(string(f), floorFile), b); err != nil {
		return fmt.Errorf("save floor: %w", err)
	}
	return nil
}

// replace writes a file in one step.
func replace(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
