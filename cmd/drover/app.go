package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/term"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/infer/host"
)

// app is what all commands share: where they read and write, and the flags that
// stand before every verb.
type app struct {
	in          io.Reader
	out, errOut io.Writer
	started     bool // a command was found and its flags and arguments were right

	json               bool
	fleetDir, programs string
	keys               string // the folder of the owner's keys; "" for the fleet's own
}

// Environment variables.
const (
	envFleet      = "DROVER_FLEET"
	envPassphrase = "DROVER_PASSPHRASE"
	envKeys       = "DROVER_KEYS"
)

// dir is the fleet's folder, absolute: other programs are told its files.
func (a *app) dir() (string, error) {
	dir := a.fleetDir
	if dir == "" {
		dir = os.Getenv(envFleet)
	}
	if dir == "" {
		dir = "fleet"
		if _, err := os.Stat("fleet.yaml"); err == nil {
			dir = "."
		}
	}
	return filepath.Abs(dir)
}

// withFleet opens the fleet for as long as fn runs.
func (a *app) withFleet(ctx context.Context, fn func(*cloud.Fleet) error) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	f, err := cloud.Open(ctx, dir)
	if err != nil {
		return err
	}
	if k := a.keysDir(); k != "" {
		f.UseKeys(k)
	}
	return errors.Join(fn(f), f.Close())
}

// keysDir is where the owner's keys are, "" for the fleet's own folder.
func (a *app) keysDir() string {
	if a.keys != "" {
		return a.keys
	}
	return os.Getenv(envKeys)
}

// host says which drover-infer runs models.
func (a *app) host() (host.Options, error) {
	if a.programs == "" {
		path, err := host.FindProgram()
		return host.Options{Program: path}, err
	}
	path := filepath.Join(a.programs, host.ProgramName)
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return host.Options{}, fmt.Errorf("%w: looked at %s", host.ErrNoProgram, path)
	}
	path, err := filepath.Abs(path)
	return host.Options{Program: path}, err
}

// passphrase opens the owner's keys: out of the environment, or asked for where
// somebody sits. "" where there is neither: keys may have none.
func (a *app) passphrase(open func(passphrase string) error) (string, error) {
	p := os.Getenv(envPassphrase)
	err := open(p)
	if p != "" || !errors.Is(err, publish.ErrPassphrase) || !terminal(a.in) {
		return p, err
	}
	if p, err = a.ask("passphrase of the owner's keys: "); err != nil {
		return "", err
	}
	return p, open(p)
}

// ask reads a line without showing it.
func (a *app) ask(prompt string) (string, error) {
	fmt.Fprint(a.errOut, prompt)
	defer fmt.Fprintln(a.errOut)
	b, err := term.ReadPassword(int(a.in.(*os.File).Fd()))
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	return string(b), nil
}

// terminal says whether somebody sits at the other end.
func terminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// print gives a command's answer: v as JSON, or what people writes.
func (a *app) print(v any, people func(w io.Writer)) error {
	if !a.json {
		people(a.out)
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", b)
	return err
}

// note tells what a person should know beside the answer.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.errOut, "note: "+format+"\n", args...)
}

// logger writes to standard error.
func (a *app) logger() *slog.Logger {
	if a.json {
		return slog.New(slog.NewJSONHandler(a.errOut, nil))
	}
	return slog.New(slog.NewTextHandler(a.errOut, nil))
}

// writeFile replaces a file as a whole.
func writeFile(path string, b []byte, mode os.FileMode) error {
	if err := renameio.WriteFile(path, b, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, nil
}
