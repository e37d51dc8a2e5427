package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// RunSource is the Source of a result that answers a Run request.
const RunSource = ^uint32(0)

// Status says how a result came about.
type Status uint32

// The statuses. A result that is not OK carries a message instead of a tensor,
// or nothing.
const (
	OK          Status = 0
	BadFrame    Status = 1 // the frame's header or size is impossible
	InvokeError Status = 2 // the runtime returned an error
	TooOld      Status = 3 // the frame was older than Attach.MaxAgeMicros: it was not classified
)

// Result is the binary answer for one frame or Run request: a header of
// ResultHeader bytes (little endian) and Data. An output tensor larger than a
// message arrives as sealed memfd beside the header.
type Result struct {
	Source     uint32
	Status     Status
	ID         uint64 // Run.ID, or the frame's sequence number
	CapturedNs int64  // the frame's CapturedAt, CLOCK_MONOTONIC; 0 for Run
	StartNs    int64  // CLOCK_MONOTONIC when the frame was taken from the ring
	PrepNs     int64  // duration of the preprocessing
	InvokeNs   int64  // duration of the inference
	Dropped    uint64 // frames of this source that were not classified, since attach: never taken, or TooOld
	Data       []byte // raw output tensor, or a message when Status ≠ OK
}

// ResultHeader is the encoded size of a Result without Data.
const ResultHeader = 4 + 4 + 8 + 8 + 8 + 8 + 8 + 8 + 4

// ErrResult is wrapped by errors of Result.Decode.
var ErrResult = errors.New("protocol: malformed result")

// Append encodes r behind b.
func (r *Result) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, r.Source)
	b = le.AppendUint32(b, uint32(r.Status))
	b = le.AppendUint64(b, r.ID)
	b = le.AppendUint64(b, uint64(r.CapturedNs))
	b = le.AppendUint64(b, uint64(r.StartNs))
	b = le.AppendUint64(b, uint64(r.PrepNs))
	b = le.AppendUint64(b, uint64(r.InvokeNs))
	b = le.AppendUint64(b, r.Dropped)
	b = le.AppendUint32(b, uint32(len(r.Data)))
	return append(b, r.Data...)
}

// Decode reads a payload into r without copying: Data stands in b. When the
// data came as memfd, Data is empty and more is its length.
func (r *Result) Decode(b []byte) (more int, err error) {
	if len(b) < ResultHeader {
		return 0, fmt.Errorf("%w: %d bytes, header has %d", ErrResult, len(b), ResultHeader)
	}
	le := binary.LittleEndian
	r.Source = le.Uint32(b)
	r.Status = Status(le.Uint32(b[4:]))
	r.ID = le.Uint64(b[8:])
	r.CapturedNs = int64(le.Uint64(b[16:]))
	r.StartNs = int64(le.Uint64(b[24:]))
	r.PrepNs = int64(le.Uint64(b[32:]))
	r.InvokeNs = int64(le.Uint64(b[40:]))
	r.Dropped = le.Uint64(b[48:])
	n := int(le.Uint32(b[56:]))
	r.Data = b[ResultHeader:]
	switch {
	case r.Status > TooOld:
		return 0, fmt.Errorf("%w: status %d", ErrResult, r.Status)
	case r.PrepNs < 0 || r.InvokeNs < 0 || r.StartNs < 0 || r.CapturedNs < 0:
		return 0, fmt.Errorf("%w: negative time", ErrResult)
	case len(r.Data) == n:
		return 0, nil
	case len(r.Data) == 0:
		return n, nil
	}
	return 0, fmt.Errorf("%w: %d bytes of data, header says %d", ErrResult, len(r.Data), n)
}
