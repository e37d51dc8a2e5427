package cloud

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrNoKey says that a role's key is not in the fleet folder: it is kept
// somewhere else.
var ErrNoKey = errors.New("cloud: the key is not here")

// CheckKey says whether the keys of an offline role are here and the passphrase
// opens them: better asked before long work than after it. ErrNoKey,
// publish.ErrPassphrase.
func (f *Fleet) CheckKey(role, passphrase string) error {
	_, err := f.signers(role, passphrase)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: role %s, wanted in %s", ErrNoKey, role, f.keys.Path)
	}
	return err
}
