package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Split parts a set in three: a train and a val fraction, and the rest as test.
// Every class is parted in these proportions (as far as whole groups allow), and
// samples of one group stay together. Where a sample goes depends on the seed,
// the fractions and the ids, on nothing else: not on order or platform.
func (s *Set) Split(train, val float64, seed uint64) (trainSet, valSet, testSet *Set, err error) {
	if !(train >= 0 && val >= 0 && train+val <= 1+1e-9) {
		return nil, nil, nil, fmt.Errorf("dataset: split %s: fractions %v and %v; wanted ≥ 0 and at most 1 together", s.Name, train, val)
	}
	strata := make([]map[string][]int, len(s.Classes)) // class → group → samples
	for g, members := range s.groups() {
		class := s.samples[members[0]].Class
		if strata[class] == nil {
			strata[class] = map[string][]int{}
		}
		strata[class][g] = members
	}
	var parts [3][]int
	for _, groups := range strata {
		for part, members := range deal(groups, train, val, seed) {
			parts[part] = append(parts[part], members...)
		}
	}
	var sets [3]*Set
	for i, name := range []string{"train", "val", "test"} {
		slices.Sort(parts[i])
		sets[i] = s.Subset(s.Name+"/"+name, parts[i])
	}
	return sets[0], sets[1], sets[2], nil
}

// groups is the samples by group; one without a group is its own.
func (s *Set) groups() map[string][]int {
	out := make(map[string][]int, len(s.samples))
	for i, x := range s.samples {
		key := "g" + x.Group
		if x.Group == "" {
			key = "i" + x.ID
		}
		out[key] = append(out[key], i)
	}
	return out
}

// deal orders the groups of one class by a hash of the seed and hands them out
// until each part has its share.
func deal(groups map[string][]int, train, val float64, seed uint64) (parts [3][]int) {
	type ranked struct {
		rank [sha256.Size]byte
		name string
	}
	order, total := make([]ranked, 0, len(groups)), 0
	for name, members := range groups {
		order = append(order, ranked{sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, seed), name...)), name})
		total += len(members)
	}
	slices.SortFunc(order, func(a, b ranked) int { return bytes.Compare(a.rank[:], b.rank[:]) })
	untilTrain := int(math.Round(train * float64(total)))
	untilVal := int(math.Round((train + val) * float64(total)))
	done := 0
	for _, r := range order {
		part := 2
		if done < untilTrain {
			part = 0
		} else if done < untilVal {
			part = 1
		}
		parts[part] = append(parts[part], groups[r.name]...)
		done += len(groups[r.name])
	}
	return parts
}
