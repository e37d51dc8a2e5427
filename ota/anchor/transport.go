package anchor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

const (
	maxMessage     = 4096             // what the kernel's driver takes at most
	headerSize     = 10               // tag, size, code
	socketDeadline = 60 * time.Second // making a key may take a TPM that long
	busyFor        = 15 * time.Second // how long a TPM may say that it is busy
)

// linkError is a failure of the way to the TPM, not of the TPM.
type linkError struct{ err error }

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// wire is a TPM behind whatever leads to it: it marks errors of the way and
// asks again while the TPM is busy.
type wire struct{ transport.TPMCloser }

// Send implements transport.TPM. A busy TPM has not begun the command, so the
// same bytes may be sent again, authorization included.
func (w wire) Send(cmd []byte) ([]byte, error) {
	pause := 5 * time.Millisecond
	for begun := time.Now(); ; pause = min(2*pause, time.Second) {
		rsp, err := w.TPMCloser.Send(cmd)
		if err != nil {
			return nil, &linkError{err}
		}
		if len(rsp) < headerSize {
			return nil, &linkError{fmt.Errorf("answer of %d bytes", len(rsp))}
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCNVRate, tpm2.TPMRCTesting, tpm2.TPMRCYielded:
			if time.Since(begun) < busyFor {
				time.Sleep(pause)
				continue
			}
		}
		return rsp, nil
	}
}

// dial opens device. An emulator behind a socket is told to start up, and what
// a predecessor left in it is flushed: there is no resource manager in between
// that would do so, and it serves one client at a time.
func dial(device string) (transport.TPMCloser, error) {
	network, address, err := socketOf(device)
	if err != nil {
		return nil, &linkError{err}
	}
	if network == "" {
		t, err := linuxtpm.Open(device)
		if err != nil {
			return nil, &linkError{err}
		}
		return wire{t}, nil
	}
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, &linkError{err}
	}
	w := wire{socket{c}}
	if err := errors.Join(startup(w), flushAll(w)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return w, nil
}

// socketOf is the network and address of an emulator; empty for a device.
func socketOf(device string) (network, address string, err error) {
	if a, ok := strings.CutPrefix(device, "tcp:"); ok {
		return "tcp", a, nil
	}
	fi, err := os.Stat(device)
	if err != nil {
		return "", "", err
	}
	if fi.Mode()&os.ModeSocket != 0 {
		return "unix", device, nil
	}
	return "", "", nil
}

// socket frames messages over a stream by the size in their header.
type socket struct{ net.Conn }

// Send implements transport.TPM.
func (s socket) Send(cmd []byte) ([]byte, error) {
	if err := s.SetDeadline(time.Now().Add(socketDeadline)); err != nil {
		return nil, err
	}
	if _, err := s.Write(cmd); err != nil {
		return nil, err
	}
	return readMessage(s)
}

func readMessage(r io.Reader) ([]byte, error) {
	b := make([]byte, headerSize, maxMessage)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(b[2:])
	if size < headerSize || size > maxMessage {
		return nil, fmt.Errorf("answer says it has %d bytes", size)
	}
	b = b[:size]
	_, err := io.ReadFull(r, b[headerSize:])
	return b, err
}

func startup(t transport.TPM) error {
	_, err := tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(t)
	if errors.Is(err, tpm2.TPMRCInitialize) {
		return nil // it was started already
	}
	return err
}

// Where transient objects, loaded sessions and saved ones begin.
var flushable = [...]uint32{0x80000000, 0x02000000, 0x03000000}

func flushAll(t transport.TPM) error {
	for _, from := range flushable {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: from, PropertyCount: 64}.Execute(t)
		if err != nil {
			return err
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return err
		}
		for _, h := range list.Handle {
			if err := flush(t, h); err != nil {
				return err
			}
		}
	}
	return nil
}

func flush(t transport.TPM, h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(t)
	return err
}
