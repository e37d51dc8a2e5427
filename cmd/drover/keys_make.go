package main

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
)

// checkRole wants the name of a role.
func checkRole(role string) error {
	if !slices.Contains(publish.Roles(), role) {
		return usage("the roles are "+strings.Join(publish.Roles(), ", "), "%q is no role", role)
	}
	return nil
}

func (a *app) keysGenerate() *cobra.Command {
	var out string
	var f makeFlags
	c := &cobra.Command{
		Use: "generate ROLE", Short: "make a new key, which nobody trusts yet", Args: exactly(1),
		Long: `Makes a key for ROLE in the folder --out, locked with a passphrase
($DROVER_PASSPHRASE, or asked for), and its public half beside it, as .pub. This
needs no fleet: do it on the machine, or the stick, of the person who will hold
the key, and give the .pub to whoever runs keys add or keys rotate.

Keys of rollouts, snapshot and timestamp belong to the hub, which starts
unattended: they have no passphrase.`,
		Example: "  drover keys generate models --out /media/stick",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkRole(args[0]); err != nil {
				return err
			}
			if out == "" {
				return usage("for example --out /media/stick", "--out is missing: the folder for the key")
			}
			k, err := a.makeKey(publish.KeyDir{Path: out}, args[0], f)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"role": k.Role, "id": k.ID, "key": k.Path, "public": publicFile(k.Path), "locked": k.Locked}, func(w io.Writer) {
				fmt.Fprintf(w, "key %s of %s is made\n\n", publish.ShortID(k.ID), k.Role)
				pairs(w, "  key", k.Path, "  public half", publicFile(k.Path))
				fmt.Fprintf(w, "\nnext: give the public half to the hub's operator: drover keys add %s FILE, or keys rotate %s --new FILE\n", k.Role, k.Role)
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "the folder for the key")
	f.add(c)
	return c
}

// makeFlags say how a new key is locked.
type makeFlags struct {
	insecure   bool
	workFactor int
}

func (f *makeFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.insecure, "insecure-no-passphrase", false, "leave the new key unlocked: for trials only")
	c.Flags().IntVar(&f.workFactor, "work-factor", 18, "cost of guessing the passphrase, as a power of two: 10 to 22")
}

// makeKey makes a key in a folder and finds it there.
func (a *app) makeKey(d publish.KeyDir, role string, f makeFlags) (publish.KeyFile, error) {
	if f.workFactor < 10 || f.workFactor > 22 {
		return publish.KeyFile{}, usage("18 takes about a second to open a key", "--work-factor %d: wanted 10 to 22", f.workFactor)
	}
	p := publish.Protection{Insecure: true}
	if !publish.Online(role) {
		pass, err := a.newPassphrase(f.insecure)
		if err != nil {
			return publish.KeyFile{}, err
		}
		p = publish.Protection{Passphrase: pass, Insecure: f.insecure, WorkFactor: f.workFactor}
	}
	key, err := d.Create(role, p)
	if err != nil {
		return publish.KeyFile{}, err
	}
	id, err := publish.KeyID(key.Public())
	if err != nil {
		return publish.KeyFile{}, err
	}
	return fileOf(d, role, id)
}

// fileOf finds a key in a folder.
func fileOf(d publish.KeyDir, role, id string) (publish.KeyFile, error) {
	all, err := d.List()
	if err != nil {
		return publish.KeyFile{}, err
	}
	for _, k := range all {
		if k.Role == role && k.ID == id {
			return k, nil
		}
	}
	return publish.KeyFile{}, fmt.Errorf("%w: key %s of %s, wanted in %s", cloud.ErrNoKey, publish.ShortID(id), role, d.Path)
}

func publicFile(keyFile string) string {
	return strings.TrimSuffix(keyFile, filepath.Ext(keyFile)) + ".pub"
}

func (a *app) keysExport() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "export-public ROLE", Short: "write the public halves of the keys at hand", Args: exactly(1),
		Long: `Writes the public halves of ROLE's keys in the folder --keys as PEM, to standard
output or into the file --out. A key whose .pub is missing is opened with its
passphrase, and gets one.`,
		Example: "  drover keys export-public models --keys /media/stick --out models.pub",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkRole(args[0]); err != nil {
				return err
			}
			dir := a.keysDir()
			if dir == "" {
				fleet, err := a.dir()
				if err != nil {
					return err
				}
				dir = filepath.Join(fleet, "keys")
			}
			pubs, err := a.publics(publish.KeyDir{Path: dir}, args[0])
			if err != nil {
				return err
			}
			var text []byte
			var ids []string
			for _, p := range pubs {
				t, err := publish.EncodePublic(p)
				if err != nil {
					return err
				}
				id, err := publish.KeyID(p)
				if err != nil {
					return err
				}
				text, ids = append(text, t...), append(ids, id)
			}
			if out != "" {
				if err := writeFile(out, text, 0o644); err != nil {
					return err
				}
			}
			return a.print(map[string]any{"role": args[0], "ids": ids, "pem": string(text), "file": out}, func(w io.Writer) {
				if out == "" {
					_, _ = w.Write(text)
					return
				}
				fmt.Fprintf(w, "%s holds the public half of %d keys\n", out, len(ids))
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "the file for it")
	return c
}

// publics are the public halves of a role's keys in a folder.
func (a *app) publics(d publish.KeyDir, role string) ([]ed25519.PublicKey, error) {
	all, err := d.List()
	if err != nil {
		return nil, err
	}
	var out []ed25519.PublicKey
	open := false
	for _, k := range all {
		if k.Role == role {
			out, open = append(out, k.Public), open || k.Public == nil
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: role %s, wanted in %s", cloud.ErrNoKey, role, d.Path)
	}
	if !open {
		return out, nil
	}
	out = nil
	_, err = a.passphrase(func(p string) error {
		signers, err := d.Load(role, p)
		for _, s := range signers {
			out = append(out, s.Public().(ed25519.PublicKey))
		}
		return err
	})
	return out, err
}

// readPublic reads a file with one public key.
func readPublic(path string) (ed25519.PublicKey, error) {
	b, err := readFile(path, 16<<10)
	if err != nil {
		return nil, err
	}
	pub, err := publish.ParsePublic(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pub, nil
}
