package cage

import (
	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// policy is a list of rules for one architecture; the first that matches
// decides.
//
// The tables of system calls are go-seccomp-bpf's, the program is our own, for
// three reasons. A conditional rule of the library's leaves an argument where
// the next rule looks for the number of the call, so that a refused fork was
// taken for an allowed pread64. It compares the architecture last and then
// takes the default action, which in a deny-list lets int 0x80 through. And it
// has no answer of its own for calls younger than its tables.
type policy struct {
	info      *arch.Info
	rules     []rule
	otherwise seccomp.Action
}

// rule holds when the call has the number and all conditions hold.
type rule struct {
	number     uint32
	conditions []condition
	action     seccomp.Action
}

// condition is about the lower half of an argument, which is all that the
// kernel reads of the arguments in question.
type condition struct {
	arg  uint32
	bits bool // any bit of value is set; otherwise: equal to value, upper half zero
	v    uint32
}

func equal(arg, v uint32) condition  { return condition{arg: arg, v: v} }
func anyBit(arg, v uint32) condition { return condition{arg: arg, v: v, bits: true} }

// add makes a rule for each name; names that the architecture's table lacks
// (open on arm64) are left out.
func (p *policy) add(action seccomp.Action, names ...string) {
	for _, n := range names {
		p.when(action, n)
	}
}

// when adds a rule that holds if all the conditions hold.
func (p *policy) when(action seccomp.Action, name string, conditions ...condition) {
	if n, ok := p.info.SyscallNames[name]; ok {
		p.rules = append(p.rules, rule{number: uint32(n), conditions: conditions, action: action})
	}
}

// Offsets in struct seccomp_data, for little-endian machines.
const (
	numberOffset = 0
	archOffset   = 4
	argsOffset   = 16
)

func load(offset uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offset, Size: 4} }

func answer(a seccomp.Action) bpf.Instruction { return bpf.RetConstant{Val: uint32(a)} }

// assemble writes the filter. A call through another architecture's table
// kills; one that the table does not know, x32's included, does not exist.
func (p *policy) assemble() []bpf.Instruction {
	newest := 0
	for n := range p.info.SyscallNumbers {
		newest = max(newest, n)
	}
	out := []bpf.Instruction{
		load(archOffset),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(p.info.ID), SkipTrue: 1},
		answer(kill),
		load(numberOffset),
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(newest), SkipFalse: 1},
		answer(seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)),
	}
	for _, r := range p.rules {
		body := r.body()
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: r.number, SkipTrue: uint8(len(body))})
		out = append(out, body...)
	}
	return append(out, answer(p.otherwise))
}

// body is what follows when the number matches: it answers, or falls off its
// end with the number loaded again.
func (r rule) body() []bpf.Instruction {
	if len(r.conditions) == 0 {
		return []bpf.Instruction{answer(r.action)}
	}
	tail := []bpf.Instruction{answer(r.action), load(numberOffset)}
	for i := len(r.conditions) - 1; i >= 0; i-- {
		c := r.conditions[i]
		low := argsOffset + 8*c.arg
		miss := uint8(len(tail) - 1) // from behind this test to the last load
		var test []bpf.Instruction
		if c.bits {
			test = []bpf.Instruction{load(low), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: c.v, SkipFalse: miss}}
		} else {
			test = []bpf.Instruction{
				load(low + 4), bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: miss + 2},
				load(low), bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.v, SkipFalse: miss},
			}
		}
		tail = append(test, tail...)
	}
	return tail
}
