package main

import "fmt"

// state is the keys of a role and who signs, by number.
type state struct {
	keys      []int
	threshold int
	sigs      []int
}

func some(all []*signer, which []int) (out []*signer) {
	for _, i := range which {
		out = append(out, all[i])
	}
	return out
}

func (s *story) ten() (all []*signer) {
	for range 10 {
		all = append(all, s.newSigner("ecdsa"))
	}
	return all
}

func rotationScenarios() (all []scenario) {
	five, other := []int{0, 1, 2, 3, 4}, []int{0, 1, 3, 4, 5}
	three, next := []int{1, 2, 3}, []int{5, 6, 7, 8, 9}
	for _, c := range []struct {
		id     string
		states []state
		fails  bool // the last one
	}{
		{"1-of-1-key-rotation", []state{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 1}}, {[]int{2}, 1, []int{2}}}, false},
		{"1-of-1-key-rotation-unused-signatures", []state{{[]int{1}, 1, []int{3, 1, 4}}, {[]int{2}, 1, []int{3, 2, 1, 4}}, {[]int{2}, 1, []int{3, 2, 4}}}, false},
		{"3-of-5-sign-with-different-keycombos", []state{{five, 3, []int{0, 2, 4}}, {five, 3, []int{0, 4, 1}}, {five, 3, []int{0, 1, 3}}, {five, 3, []int{0, 1, 3}}}, false},
		{"3-of-5-one-key-rotated", []state{{five, 3, []int{0, 2, 4}}, {other, 3, []int{0, 4, 1}}}, false},
		{"3-of-5-one-key-rotated-with-intermediate-step", []state{{five, 3, []int{0, 2, 4}}, {other, 3, []int{0, 2, 4, 5}}, {other, 3, []int{0, 4, 5}}}, false},
		{"3-of-5-all-keys-rotated-with-intermediate-step", []state{{five, 3, []int{0, 2, 4}}, {next, 3, []int{0, 2, 4, 5, 6, 7}}, {next, 3, []int{5, 6, 7}}}, false},
		{"1-of-3-threshold-increase-to-2-of-3", []state{{three, 1, []int{1}}, {three, 2, []int{1, 2}}}, false},
		{"2-of-3-threshold-decrease-to-1-of-3", []state{{three, 2, []int{1, 2}}, {three, 1, []int{1, 2}}, {three, 1, []int{1}}}, false},
		{"1-of-2-threshold-increase-to-2-of-2", []state{{[]int{1}, 1, []int{1}}, {[]int{1, 2}, 2, []int{1, 2}}}, false},
		{"1-of-1-key-rotation-fail-not-signed-with-old-key", []state{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 3, 4}}}, true},
		{"1-of-1-key-rotation-fail-not-signed-with-new-key", []state{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{1, 3, 4}}}, true},
		{"3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys", []state{{five, 3, []int{0, 2, 4}}, {other, 3, []int{0, 2, 4}}}, true},
		{"3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys", []state{{five, 3, []int{0, 2, 4}}, {other, 3, []int{0, 4, 5}}}, true},
		{"1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached", []state{{three, 1, []int{1}}, {three, 2, []int{2}}}, true},
		{"2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached", []state{{three, 2, []int{1, 2}}, {three, 1, []int{1}}}, true},
	} {
		all = append(all, scenario{"test_root_rotation[" + c.id + "]", fmt.Sprintf("%d roots follow one another: %s", len(c.states), code(c.fails)), func(s *story) {
			k := s.ten()
			s.again("root", 1)
			for _, st := range c.states {
				s.keysOf("root", st.threshold, some(k, st.keys), some(k, st.sigs))
				s.publish("root")
			}
			s.publish("targets", "snapshot", "timestamp")
			s.root = s.signed["root"][0]
			s.init()
			n := len(c.states)
			if c.fails {
				s.refresh(1)
				n--
			} else {
				s.refresh(0)
			}
			s.stores("root", s.signed["root"][n-1])
		}})
	}
	return append(all, roleRotations()...)
}

func code(fails bool) string {
	if fails {
		return "1"
	}
	return "0"
}

func roleRotations() (all []scenario) {
	five, other := []int{0, 1, 2, 3, 4}, []int{0, 1, 3, 4, 5}
	for _, c := range []struct {
		id    string
		state state
		fails bool
	}{
		{"1-of-1-key-rotation", state{[]int{2}, 1, []int{2}}, false},
		{"1-of-1-key-rotation-unused-signatures", state{[]int{1}, 1, []int{3, 1, 4}}, false},
		{"1-of-1-key-rotation-fail-not-signed-with-new-key", state{[]int{2}, 1, []int{1, 3, 4}}, true},
		{"3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys", state{other, 3, []int{0, 2, 4}}, true},
		{"2-of-5-one-key-signature-mising-threshold-not-reached", state{other, 3, []int{0, 4}}, true},
		{"3-of-5-sign-first-combo", state{five, 3, []int{0, 2, 4}}, false},
		{"3-of-5-sign-second-combo", state{five, 3, []int{0, 4, 1}}, false},
		{"3-of-5-sign-third-combo", state{five, 3, []int{0, 1, 3}}, false},
		{"3-of-5-sign-fourth-combo", state{five, 3, []int{1, 2, 3}}, false},
		{"3-of-5-sign-fifth-combo", state{five, 3, []int{2, 3, 4}}, false},
	} {
		all = append(all, scenario{"test_non_root_rotations[" + c.id + "]", "timestamp, snapshot and targets get other keys, one after the other: " + code(c.fails), func(s *story) {
			s.init()
			k := s.ten()
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				s.keysOf(role, c.state.threshold, some(k, c.state.keys), some(k, c.state.sigs))
				s.publish(top...)
				if c.fails {
					s.refresh(1)
					continue
				}
				s.refresh(0)
				s.stores(role, s.latest(role))
			}
		}})
	}
	return all
}
