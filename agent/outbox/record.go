package outbox

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/droverhq/drover/agent/wire"
)

const (
	magic      = "DROVOB1\n"
	headLen    = 8 // length and CRC
	fixedLen   = 10
	maxTopic   = 256
	maxRecord  = fixedLen + maxTopic + wire.MaxMessage
	cursorLen  = 12
	cursorName = "cursor"
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func encodeRecord(seq uint64, topic string, payload []byte) []byte {
	b := make([]byte, headLen, headLen+fixedLen+len(topic)+len(payload))
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(append(b, topic...), payload...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-headLen))
	binary.BigEndian.PutUint32(b[4:], checksum(b[headLen:]))
	return b
}

// decodeRecord reads the record at the beginning of b. n is its length; 0 means
// that there is no whole, sound record.
func decodeRecord(b []byte) (seq uint64, topic string, payload []byte, n int) {
	if len(b) < headLen+fixedLen {
		return 0, "", nil, 0
	}
	length := int(binary.BigEndian.Uint32(b))
	if length < fixedLen || length > maxRecord || len(b) < headLen+length {
		return 0, "", nil, 0
	}
	body := b[headLen : headLen+length]
	if checksum(body) != binary.BigEndian.Uint32(b[4:]) {
		return 0, "", nil, 0
	}
	t := int(binary.BigEndian.Uint16(body[8:]))
	if t > maxTopic || fixedLen+t > length {
		return 0, "", nil, 0
	}
	return binary.BigEndian.Uint64(body), string(body[fixedLen : fixedLen+t]), body[fixedLen+t:], headLen + length
}

func encodeCursor(seq uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, seq)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

func decodeCursor(b []byte) uint64 {
	if len(b) != cursorLen || binary.BigEndian.Uint32(b[8:]) != checksum(b[:8]) {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
