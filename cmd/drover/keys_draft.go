package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
)

// draftState is what people are told of a draft.
type draftState struct {
	Fleet    string         `json:"fleet"`
	File     string         `json:"file,omitempty"`
	Root     int64          `json:"root"` // the version that the draft builds on
	Changes  []string       `json:"changes"`
	Needs    []publish.Need `json:"needs"`
	Complete bool           `json:"complete"`
	Finished bool           `json:"finished"` // taken in
	Signed   int            `json:"signed,omitempty"`
}

func stateOf(d *publish.Draft) (draftState, error) {
	s := draftState{Fleet: d.Fleet}
	var err error
	if _, s.Root, err = d.BaseRoot(); err != nil {
		return s, err
	}
	if s.Changes, err = d.Changes(); err != nil {
		return s, err
	}
	if s.Needs, err = d.Needs(); err != nil {
		return s, err
	}
	s.Complete, err = d.Complete()
	return s, err
}

// text shows a draft: what it does, who has signed, what comes next.
func (s *draftState) text(w io.Writer) {
	fmt.Fprintf(w, "fleet %s, on top of root version %d:\n", s.Fleet, s.Root)
	for _, line := range s.Changes {
		fmt.Fprintln(w, " ", line)
	}
	fmt.Fprintln(w)
	for _, n := range s.Needs {
		line := fmt.Sprintf("%s version %d: %d of %d signatures by %s keys", n.Role, n.Version, len(n.Signed), n.Threshold, n.By)
		if !n.Met() {
			line += "; may still sign: " + shortAll(n.Missing)
		}
		fmt.Fprintln(w, line)
	}
	switch {
	case s.Finished:
		fmt.Fprintln(w, "\ndone; a running hub publishes it within a second")
	case s.Complete:
		fmt.Fprintf(w, "\nnext: drover keys finish %s, where the fleet's folder is\n", s.File)
	default:
		fmt.Fprintf(w, "\nnext: drover keys sign %s, with the keys of those who have to sign\n", s.File)
	}
}

func shortAll(ids []string) string {
	var out []string
	for _, id := range ids {
		out = append(out, publish.ShortID(id))
	}
	return strings.Join(out, ", ")
}

// saveDraft writes a draft; a file that is there is replaced only if it is to
// be: it may hold signatures of others.
func saveDraft(path string, d *publish.Draft, replace bool) error {
	b, err := d.Encode()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil && !replace {
		return fmt.Errorf("%s: %w; it may hold signatures of others: finish it, remove it, or name another with --pending", path, fs.ErrExist)
	}
	return writeFile(path, b, 0o644)
}

func loadDraft(path string) (*publish.Draft, error) {
	b, err := readFile(path, 1<<20)
	if err != nil {
		return nil, err
	}
	d, err := publish.DecodeDraft(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func (a *app) keysPending() *cobra.Command {
	var payload, out string
	c := &cobra.Command{
		Use: "pending FILE", Short: "explain what waits for signatures", Args: exactly(1),
		Long: `Shows what a pending file changes, who has signed it, and who may still. All of
it is computed from the metadata in the file. It needs no fleet.

With --payload ROLE the bytes that are to be signed go into the file --out, for
a signing device that drover cannot reach: it makes a plain Ed25519 signature
over them, which keys sign --signature takes.`,
		Example: "  drover keys pending models.json\n  drover keys pending models.json --payload models --out models.bin",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := loadDraft(args[0])
			if err != nil {
				return err
			}
			if payload != "" {
				return a.writePayload(d, payload, out)
			}
			s, err := stateOf(d)
			if err != nil {
				return err
			}
			s.File = args[0]
			return a.print(s, s.text)
		},
	}
	c.Flags().StringVar(&payload, "payload", "", "role whose bytes are to be signed elsewhere")
	c.Flags().StringVar(&out, "out", "", "the file for them")
	return c
}

func (a *app) writePayload(d *publish.Draft, role, out string) error {
	b, err := d.Payload(role)
	if err != nil {
		return err
	}
	if out == "" {
		return usage("for example --out "+role+".bin", "--out is missing: the file for the bytes")
	}
	if err := writeFile(out, b, 0o644); err != nil {
		return err
	}
	return a.print(map[string]any{"role": role, "file": out, "bytes": len(b)}, func(w io.Writer) {
		fmt.Fprintf(w, "%s holds the %d bytes of %s that are to be signed\n", out, len(b), role)
	})
}

// signFlags are the flags of keys sign.
type signFlags struct {
	yes                     bool
	root, signature, public string
	role                    string
}

func (a *app) keysSign() *cobra.Command {
	var f signFlags
	c := &cobra.Command{
		Use: "sign FILE", Short: "add your signature to a pending file", Args: exactly(1),
		Long: `Shows what FILE changes, asks, and has the keys in the folder --keys sign it. It
needs no fleet and no network: only your keys and the file.

Compare what is shown with what you were told, key by key. --root names a
root.json of the fleet that you know, and refuses a file that builds on another.
With --signature the signature was made elsewhere (keys pending --payload).`,
		Example: "  drover keys sign models.json --keys /media/stick\n  drover keys sign models.json --role models --public hsm.pub --signature models.sig",
		RunE:    func(c *cobra.Command, args []string) error { return a.runSign(args[0], &f) },
	}
	fl := c.Flags()
	fl.BoolVar(&f.yes, "yes", false, "do not ask")
	fl.StringVar(&f.root, "root", "", "root.json that the file must build on")
	fl.StringVar(&f.signature, "signature", "", "file with a signature that was made elsewhere, 64 bytes")
	fl.StringVar(&f.public, "public", "", "file with the public half of the key that made it")
	fl.StringVar(&f.role, "role", "", "role that it signs")
	return c
}

func (a *app) runSign(path string, f *signFlags) error {
	d, err := loadDraft(path)
	if err != nil {
		return err
	}
	if f.root != "" {
		if err := sameRoot(d, f.root); err != nil {
			return err
		}
	}
	s, err := stateOf(d)
	if err != nil {
		return err
	}
	s.File = path
	if err := a.confirm(&s, f.yes); err != nil {
		return err
	}
	added := 1
	if f.signature != "" {
		err = attach(d, f)
	} else {
		dir := a.keysDir()
		if dir == "" {
			return usage("for example --keys /media/stick", "--keys is missing: the folder of your keys")
		}
		added = 0
		_, err = a.passphrase(func(p string) error {
			n, err := cloud.SignDraft(d, publish.KeyDir{Path: dir}, p)
			added += n
			return err
		})
		if err == nil && added == 0 {
			err = fmt.Errorf("%w: no key in %s has anything to sign here that it has not signed", cloud.ErrNoKey, dir)
		}
	}
	if err != nil {
		return err
	}
	if err := saveDraft(path, d, true); err != nil {
		return err
	}
	if s, err = stateOf(d); err != nil {
		return err
	}
	s.File, s.Signed = path, added
	return a.print(s, s.text)
}

func attach(d *publish.Draft, f *signFlags) error {
	if f.public == "" || f.role == "" {
		return usage("", "--signature needs --public and --role")
	}
	sig, err := readFile(f.signature, 1024)
	if err != nil {
		return err
	}
	pub, err := readPublic(f.public)
	if err != nil {
		return err
	}
	return d.Attach(f.role, pub, sig)
}

// sameRoot compares what a draft builds on with a root that is known.
func sameRoot(d *publish.Draft, path string) error {
	known, err := readFile(path, 64<<10)
	if err != nil {
		return err
	}
	raw, version, err := d.BaseRoot()
	if err != nil {
		return err
	}
	if string(known) != string(raw) {
		return fmt.Errorf("%w: the file builds on a root version %d that is not %s", errBroken, version, path)
	}
	return nil
}

// confirm shows what is to be signed and asks.
func (a *app) confirm(s *draftState, yes bool) error {
	if yes {
		return nil
	}
	if !terminal(a.in) {
		return usage("look at it with drover keys pending, then say --yes", "nobody is here to confirm what is signed")
	}
	s.text(a.errOut)
	fmt.Fprint(a.errOut, "\nsign this? [y/N] ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "y" {
		return usage("", "nothing was signed")
	}
	return nil
}

func (a *app) keysFinish() *cobra.Command {
	return &cobra.Command{
		Use: "finish FILE...", Short: "take in what was signed", Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return nil
			}
			return usage("usage: "+c.UseLine(), "%s: a file is missing", c.CommandPath())
		},
		Long: `Takes a pending file with all its signatures into the fleet; a running hub
publishes it. Copies that different people signed at the same time may be given
together: their signatures are added up.`,
		Example: "  drover keys finish models.json\n  drover keys finish anna.json bert.json",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := loadDraft(args[0])
			if err != nil {
				return err
			}
			for _, path := range args[1:] {
				other, err := loadDraft(path)
				if err != nil {
					return err
				}
				if err := d.Merge(other); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				s, err := stateOf(d)
				if err != nil {
					return err
				}
				if err := d.Finish(c.Context(), f.Repo(), time.Now()); err != nil {
					return err
				}
				s.Finished = true
				return a.print(s, s.text)
			})
		},
	}
}
