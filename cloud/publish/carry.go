package publish

import (
	"context"
	"crypto"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// MaxCarry bounds how long a carried publication may hold: as long as a snapshot
// does.
const MaxCarry = 7 * 24 * time.Hour

// Carry is what was published last under a new timestamp that holds for valid,
// for a file that is on its way for longer than a broker keeps a message. The
// timestamp is not stored: it must not stand in for one that is renewed every
// day. So Carry then publishes a regular one that is newer, lest a device that
// took the file finds the broker's older than its own. What is published must be
// up to date, or it is ErrInvalid.
func Carry(ctx context.Context, repo Repo, snapshot, timestamp []crypto.Signer, now time.Time, valid time.Duration) (*Publication, error) {
	if valid < time.Minute || valid > MaxCarry {
		return nil, fail(ErrInvalid, "a publication to be carried for %v, allowed are 1m to %v", valid, MaxCarry)
	}
	p, fresh, err := compose(ctx, repo, snapshot, timestamp, now, func(role string) time.Time {
		if role == metadata.TIMESTAMP {
			return now.Add(valid).UTC().Truncate(time.Second)
		}
		return ends(role, now)
	})
	if err != nil {
		return nil, err
	}
	if len(fresh) != 1 {
		return nil, fail(ErrInvalid, "the snapshot is not up to date; publish first")
	}
	carried := p.Versions[metadata.TIMESTAMP]
	after := time.Unix(max(carried+1, now.Unix()), 0)
	if _, err := Publish(ctx, repo, snapshot, timestamp, after); err != nil {
		return nil, err
	}
	if _, err := repo.Get(ctx, metadata.TIMESTAMP, carried); err == nil {
		return nil, fail(ErrExists, "a hub published timestamp %d in the same second; try again", carried)
	}
	return p, nil
}
