package anchor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// interposer sits on the bus and changes answers.
type interposer struct {
	transport.TPMCloser
	change func(cmd tpm2.TPMCC, sent, answer []byte) []byte
	saw    *bytes.Buffer
}

func (i interposer) Send(cmd []byte) ([]byte, error) {
	i.saw.Write(cmd)
	rsp, err := i.TPMCloser.Send(cmd)
	if err != nil {
		return nil, err
	}
	i.saw.Write(rsp)
	return i.change(tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])), cmd, rsp), nil
}

func TestInterposer(t *testing.T) {
	const params = headerSize + 4 // an answer's parameters follow its header and their size
	var recorded []byte
	for name, change := range map[string]func(cmd tpm2.TPMCC, sent, answer []byte) []byte{
		"lower counter": func(cmd tpm2.TPMCC, _, answer []byte) []byte {
			if cmd == tpm2.TPMCCNVRead && binary.BigEndian.Uint16(answer[params:]) == 8 {
				answer[params+2+7]--
			}
			return answer
		},
		"recorded answer": func(cmd tpm2.TPMCC, _, answer []byte) []byte {
			if cmd == tpm2.TPMCCNVRead && binary.BigEndian.Uint16(answer[params:]) == 8 {
				if recorded == nil {
					recorded = bytes.Clone(answer)
				}
				return recorded
			}
			return answer
		},
		"signature of something else": func(cmd tpm2.TPMCC, _, answer []byte) []byte {
			if cmd == tpm2.TPMCCSign {
				answer[params+10]++
			}
			return answer
		},
		"cut answer": func(cmd tpm2.TPMCC, _, answer []byte) []byte {
			if cmd == tpm2.TPMCCNVRead {
				return answer[:len(answer)-1]
			}
			return answer
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, dir := newEmulator(t), t.TempDir()
			a := openTPM(t, e, dir)
			if err := a.Raise(2); err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			o := e.options(dir)
			o.dial = func() (transport.TPMCloser, error) {
				c, err := dial(e.device)
				return wire{interposer{c, change, new(bytes.Buffer)}}, err
			}
			b := newTPM(o)
			first, err := b.Epoch()
			if err == nil && first != 2 {
				t.Fatalf("epoch %d", first)
			}
			if err := b.Raise(3); err == nil { // the bus may lose what it carries, never lower it
				if e, err := b.Epoch(); err == nil && e < 3 {
					t.Fatalf("epoch %d after it was raised to 3", e)
				}
			}
			_, err2 := b.Epoch()
			s, err3 := b.Signer()
			if err3 == nil {
				_, err3 = s.Sign(nil, make([]byte, 32), sha256Hash)
			}
			if err := errors.Join(err, err2, err3); !errors.Is(err, ErrTampered) {
				t.Fatalf("nothing was noticed: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Whoever listens on the bus while the device is provisioned and works sees no
// auth value.
func TestListener(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	saw := new(bytes.Buffer)
	o := e.options(dir)
	o.TakeOwner = true
	o.dial = func() (transport.TPMCloser, error) {
		c, err := dial(e.device)
		return wire{interposer{c, func(_ tpm2.TPMCC, _, answer []byte) []byte { return answer }, saw}}, err
	}
	a, err := OpenTPM(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Raise(1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(saw.Bytes(), a.rec.Tag) {
		t.Fatal("the listener heard nothing")
	}
	for _, use := range []string{authNV, authKey, authOwner, authLockout} {
		if bytes.Contains(saw.Bytes(), a.rec.auth(use)) {
			t.Errorf("the auth value for %s was sent in the clear", use)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}
