package delta

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Make returns a delta that makes target of base: the smallest of several. It
// may be larger than the target; that is for the caller to see. It takes a few
// seconds and up to 20 times the memory of both.
func Make(base, target []byte) ([]byte, error) {
	if len(base) > MaxSize || len(target) > MaxSize {
		return nil, fmt.Errorf("delta: base of %d and target of %d bytes, allowed %d", len(base), len(target), MaxSize)
	}
	p, err := newPacker(base)
	if err != nil {
		return nil, err
	}
	defer p.close()
	var best []byte
	for _, ops := range plans(p, base, target) {
		for _, e := range []*zstd.Encoder{p.based, p.plain} {
			if e == nil {
				continue
			}
			if d := assemble(base, target, ops, e); best == nil || len(d) < len(best) {
				best = d
			}
			if !has(ops, opLZ) {
				break // the encoder makes no difference
			}
		}
	}
	return best, nil
}

// plans are ways to make the target.
func plans(p *packer, base, target []byte) [][]op {
	if len(target) == 0 {
		return [][]op{nil}
	}
	whole := op{size: len(target), width: 1}
	lz, level, sub := whole, whole, whole
	lz.kind, level.kind, level.level, sub.kind = opLZ, opNew, true, opSub
	out := [][]op{{lz}, {level}}
	if len(base) == len(target) {
		out = append(out, []op{sub})
	}
	if list, ok := regions(base, target); ok {
		ops := planned(p, base, target, list)
		out = append(out, ops, levelled(ops, list))
	}
	return out
}

func has(ops []op, k kind) bool {
	for _, o := range ops {
		if o.kind == k {
			return true
		}
	}
	return false
}

// assemble writes a delta of given operations.
func assemble(base, target []byte, ops []op, e *zstd.Encoder) []byte {
	s := stream{c: newEncoder()}
	var text []byte
	at := 0
	for _, o := range ops {
		if _, err := s.head(o, len(target)-at, len(base)); err != nil {
			panic("internal error: delta: " + err.Error())
		}
		data := target[at:][:o.size]
		switch o.kind {
		case opLZ:
			text = append(text, data...)
		case opSub, opNew:
			s.encode(o, data, base)
		}
		at += o.size
	}
	if at != len(target) {
		panic(fmt.Sprintf("internal error: delta: operations of %d bytes for a target of %d", at, len(target)))
	}
	a, b := s.c.finish(), pack(e, text)
	from, goal := sha256.Sum256(base), sha256.Sum256(target)
	out := append([]byte(magic), version)
	out = append(append(out, from[:baseSum]...), goal[:goalSum]...)
	for _, n := range []int{len(base), len(target), len(a), len(b)} {
		out = binary.AppendUvarint(out, uint64(n))
	}
	return append(append(out, a...), b...)
}
