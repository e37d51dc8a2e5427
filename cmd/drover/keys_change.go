package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
)

// howSigned ends the help of every verb that makes a draft.
const howSigned = `

The keys in the folder --keys sign it. If they are enough, it is done, and a
running hub publishes it. If not, it is left in the file --pending: give that to
the other holders (keys sign), then take it in (keys finish).`

func (a *app) keysAdd() *cobra.Command {
	var threshold int
	var pending string
	c := &cobra.Command{
		Use: "add ROLE FILE", Short: "let one more key sign a role", Args: exactly(2),
		Long:    `Adds the key whose public half is in FILE to those that may sign ROLE.` + howSigned,
		Example: "  drover keys add models anna.pub --threshold 2",
		RunE: func(c *cobra.Command, args []string) error {
			pub, err := readPublic(args[1])
			if err != nil {
				return err
			}
			return a.change(c.Context(), publish.KeyChange{Role: args[0], Add: []ed25519.PublicKey{pub}, Threshold: threshold}, pending)
		},
	}
	c.Flags().IntVar(&threshold, "threshold", 0, "from now on so many keys must sign (default: as it is)")
	pendingFlag(c, &pending)
	return c
}

func (a *app) keysRotate() *cobra.Command {
	var fresh, old, pending string
	var lock makeFlags
	c := &cobra.Command{
		Use: "rotate ROLE", Short: "put a new key in the place of one", Args: exactly(1),
		Long: `Makes a new key for ROLE, or takes the one whose public half --new names, in the
place of the key --old. Keys of root, targets, snapshot and timestamp stand in
the next version of root, which today's root keys sign, and the new ones too if
it is root's own; keys of models and rollouts stand in the next version of
targets. What must be signed anew because of it is part of the same step; what
the hub signs, it signs anew by itself, if it has the new key in its folder.

Devices follow, however long they were away. This is for keys that are in good
hands; if one is lost or stolen, see keys revoke.` + howSigned,
		Example: "  drover keys rotate timestamp\n  drover keys rotate models --new anna.pub --old 3fa2c81b --pending models.json",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkRole(args[0]); err != nil {
				return err
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				change, err := a.rotation(c.Context(), f, args[0], fresh, old, lock)
				if err != nil {
					return err
				}
				d, err := publish.DraftKeys(c.Context(), f.Repo(), change, time.Now())
				if err != nil {
					return err
				}
				return a.settle(c.Context(), f, d, args[0], pending)
			})
		},
	}
	c.Flags().StringVar(&fresh, "new", "", "file with the public half of the new key (default: make one in the folder of the role's keys)")
	c.Flags().StringVar(&old, "old", "", "id of the key that goes, its beginning is enough (default: the only one)")
	lock.add(c)
	pendingFlag(c, &pending)
	return c
}

func (a *app) rotation(ctx context.Context, f *cloud.Fleet, role, fresh, old string, lock makeFlags) (publish.KeyChange, error) {
	c := publish.KeyChange{Role: role}
	id, err := a.oldKey(ctx, f, role, old)
	if err != nil {
		return c, err
	}
	c.Remove = []string{id}
	if fresh != "" {
		pub, err := readPublic(fresh)
		c.Add = []ed25519.PublicKey{pub}
		return c, err
	}
	k, err := a.makeKey(f.KeyDir(role), role, lock)
	if err != nil {
		return c, err
	}
	c.Add = []ed25519.PublicKey{k.Public}
	a.note("the new key is in %s", k.Path)
	return c, nil
}

// oldKey finds the key that is meant by the beginning of its id.
func (a *app) oldKey(ctx context.Context, f *cloud.Fleet, role, prefix string) (string, error) {
	if prefix != "" {
		return publish.FindKey(ctx, f.Repo(), role, prefix)
	}
	all, err := publish.Standings(ctx, f.Repo(), time.Now())
	if err != nil {
		return "", err
	}
	for _, s := range all {
		if s.Role == role && len(s.Keys) == 1 {
			return s.Keys[0], nil
		}
	}
	return "", usage("drover keys list shows them; --old names one", "%s has several keys", role)
}

func (a *app) keysRevoke() *cobra.Command {
	var fresh, pending string
	var threshold int
	var keep []string
	c := &cobra.Command{
		Use: "revoke ROLE KEYID", Short: "take the right to sign from a key that was lost or stolen", Args: exactly(2),
		Long: `Takes KEYID out of ROLE. Where too few keys would be left, --new names one that
comes, or --threshold says how many must sign from now on.

A models key that was stolen may have signed anything: releases that no other
key ever signed are left out, and devices refuse them from then on, but for
those that you name with --keep because you know them. Rollouts of the others
are no longer offered; a device that runs one goes on until it is given another.` + howSigned,
		Example: "  drover keys revoke models 3fa2c81b --new anna.pub --keep release/gate/3",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkRole(args[0]); err != nil {
				return err
			}
			change := publish.KeyChange{Role: args[0], Threshold: threshold, Distrust: true}
			for _, k := range keep {
				change.Keep = append(change.Keep, cloud.ReleaseOf(k))
			}
			if fresh != "" {
				pub, err := readPublic(fresh)
				if err != nil {
					return err
				}
				change.Add = []ed25519.PublicKey{pub}
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				id, err := publish.FindKey(c.Context(), f.Repo(), args[0], args[1])
				if err != nil {
					return err
				}
				change.Remove = []string{id}
				d, err := publish.DraftKeys(c.Context(), f.Repo(), change, time.Now())
				if err != nil {
					return err
				}
				return a.settle(c.Context(), f, d, args[0], pending)
			})
		},
	}
	c.Flags().StringVar(&fresh, "new", "", "file with the public half of a key that comes in its place")
	c.Flags().IntVar(&threshold, "threshold", 0, "from now on so many keys must sign (default: as it is)")
	c.Flags().StringArrayVar(&keep, "keep", nil, "release to keep although only this key signed it, name@version; may be repeated")
	pendingFlag(c, &pending)
	return c
}

func (a *app) keysThreshold() *cobra.Command {
	var pending string
	c := &cobra.Command{
		Use: "threshold ROLE N", Short: "say how many keys must sign a role", Args: exactly(2),
		Long:    `From now on N of ROLE's keys must sign.` + howSigned,
		Example: "  drover keys threshold models 2",
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 {
				return usage("", "threshold %q: wanted 1 or more", args[1])
			}
			return a.change(c.Context(), publish.KeyChange{Role: args[0], Threshold: n}, pending)
		},
	}
	pendingFlag(c, &pending)
	return c
}

func (a *app) keysRenew() *cobra.Command {
	var pending string
	c := &cobra.Command{
		Use: "renew ROLE", Short: "sign root, targets or models again before it expires", Args: exactly(1),
		Long: `Makes the next version of ROLE with the same content and a new expiry. When that
is due says keys list, and the hub's log.` + howSigned,
		Example: "  drover keys renew targets --keys /media/stick",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkRole(args[0]); err != nil {
				return err
			}
			if publish.Online(args[0]) {
				return usage("", "%s is renewed by the hub", args[0])
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				d, err := publish.DraftRenewal(c.Context(), f.Repo(), args[0], time.Now())
				if err != nil {
					return err
				}
				return a.settle(c.Context(), f, d, args[0], pending)
			})
		},
	}
	pendingFlag(c, &pending)
	return c
}

func pendingFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "pending", "", "the file for what others have to sign (default: FLEET-ROLE.pending.json here)")
}

// change drafts and settles one change of keys.
func (a *app) change(ctx context.Context, k publish.KeyChange, pending string) error {
	if err := checkRole(k.Role); err != nil {
		return err
	}
	return a.withFleet(ctx, func(f *cloud.Fleet) error {
		d, err := publish.DraftKeys(ctx, f.Repo(), k, time.Now())
		if err != nil {
			return err
		}
		return a.settle(ctx, f, d, k.Role, pending)
	})
}

// settle has the keys at hand sign a draft, and takes it in or leaves it for
// the others.
func (a *app) settle(ctx context.Context, f *cloud.Fleet, d *publish.Draft, role, pending string) error {
	_, err := a.passphrase(func(p string) error { _, err := f.Sign(d, p); return err })
	if err != nil {
		return err
	}
	s, err := stateOf(d)
	if err != nil {
		return err
	}
	if s.Complete {
		if err := d.Finish(ctx, f.Repo(), time.Now()); err != nil {
			return err
		}
		s.Finished = true
		return a.print(s, s.text)
	}
	if pending == "" {
		pending = fmt.Sprintf("%s-%s.pending.json", d.Fleet, role)
	}
	s.File = pending
	if err := saveDraft(pending, d, false); err != nil {
		return err
	}
	return a.print(s, s.text)
}
