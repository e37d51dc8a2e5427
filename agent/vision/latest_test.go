package vision

import "testing"

// Both models see the same frames during a swap: each frame counts once, by the
// model that serves, and what neither answered is dropped.
func TestLatestCountsEachFrameOnce(t *testing.T) {
	var l latest
	for i, k := range []struct {
		source  uint32
		seq     uint64
		serves  bool
		taken   bool
		dropped uint64
	}{
		{1, 7, true, true, 0},   // frames before the first answer are nobody's loss
		{1, 8, true, true, 0},   //
		{1, 8, true, false, 0},  // the other model's answer to the same frame
		{1, 6, true, false, 0},  // or to an older one
		{1, 9, false, false, 0}, // a model that does not serve any more
		{1, 11, true, true, 2},  // 9 and 10 were answered by nobody
		{2, 1, true, true, 2},   // a new ring counts from its beginning
		{2, 3, true, true, 3},
	} {
		taken := l.set(k.source, &Result{Seq: k.seq}, func() bool { return k.serves })
		if taken != k.taken || l.dropped != k.dropped {
			t.Errorf("step %d: taken %v, dropped %d; wanted %v, %d", i, taken, l.dropped, k.taken, k.dropped)
		}
	}
	if l.results != 5 {
		t.Errorf("%d results", l.results)
	}
}
