package delta

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Make returns a delta that makes target of base: the smallest of several. It
// may be larger than the target; that is for the caller to see. It takes a few
// seconds and up to 20 times the memory of both.
func Make(base, target []byte) ([]byte, error) {
	if len(base) > MaxSize || len(target) > MaxSize {
		return nil, fmt.Errorf("delta: base of %d and target of %d bytes, allowed %d", len(base), len(target), MaxSize)
	}
	whole := op{size: len(target), width: 1}
	plans := [][]op{}
	if len(target) == 0 {
		return assemble(base, target, nil, nil)
	}
	lz, level, sub := whole, whole, whole
	lz.kind, level.kind, level.level, sub.kind = opLZ, opNew, true, opSub
	plans = append(plans, []op{lz}, []op{level})
	if len(base) == len(target) {
		plans = append(plans, []op{sub})
	}
	if list, ok := regions(base, target); ok {
		p, err := planned(base, target, list)
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
	}
	var best []byte
	for _, ops := range plans {
		for _, dict := range [][]byte{dictOf(base), nil} {
			d, err := assemble(base, target, ops, dict)
			if err != nil {
				return nil, err
			}
			if best == nil || len(d) < len(best) {
				best = d
			}
			if !has(ops, opLZ) {
				break // the dictionary makes no difference
			}
		}
	}
	return best, nil
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
func assemble(base, target []byte, ops []op, dict []byte) ([]byte, error) {
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
	b, err := deflate(text, dict)
	if err != nil {
		return nil, err
	}
	a := s.c.finish()
	from, goal := sha256.Sum256(base), sha256.Sum256(target)
	out := append([]byte(magic), version)
	out = append(append(out, from[:baseSum]...), goal[:goalSum]...)
	for _, n := range []int{len(base), len(target), len(a), len(b)} {
		out = binary.AppendUvarint(out, uint64(n))
	}
	return append(append(out, a...), b...), nil
}
