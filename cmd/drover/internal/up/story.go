package up

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/cloud/evaluate"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/train"
)

const (
	steps        = 6
	modelName    = "fashion"
	goldenCount  = 10
	probation    = 50 // frames
	updateWithin = 60 * time.Second
	replayed     = 500 // pictures in front of the camera
)

// story is the demo: every step happens for real, or it fails by name.
type story struct {
	*world
	began    time.Time
	test     *dataset.Set
	golden   []cloud.GoldenPicture
	pictures *cloud.Prepared
	digest   string
	sum      Summary
}

func (w *world) picturesDir() string { return filepath.Join(w.opts.Dir, "pictures") }

// pictures puts pictures nobody was trained on in front of the camera.
func (w *world) pictures(ctx context.Context) error {
	test, err := dataset.OpenIDXDir(w.opts.Data, "t10k", dataset.FashionClasses())
	if err != nil {
		return fmt.Errorf("up: demo pictures: %w", err)
	}
	n, err := test.Export(ctx, w.picturesDir(), dataset.ExportOptions{Every: test.Len() / replayed, Flat: true})
	if err != nil {
		return fmt.Errorf("up: demo pictures: %w", err)
	}
	w.ui.say("camera       %d pictures of the test set, replayed at 25 frames a second", n)
	return nil
}

func (s *story) run(ctx context.Context) (*Summary, error) {
	s.ui.step(1, "A fleet: broker, hub, and one real device")
	mark := 0
	if _, err := s.events.wait(ctx, mark, updateWithin, "start of the daemon", func(e wire.Event) bool { return e.Kind == wire.EventCamera }); err != nil {
		return nil, err
	}
	s.ui.say("device       %s is enrolled and online; its camera runs", deviceName)
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	if err := s.pause(ctx); err != nil {
		return nil, err
	}
	s.ui.step(2, "A first classifier: train, quantize to int8, evaluate, sign, roll out")
	first, acc, err := s.version(ctx, "quick")
	if err != nil {
		return nil, err
	}
	s.sum.AccuracyV1 = acc
	if err := s.pause(ctx); err != nil {
		return nil, err
	}
	s.ui.step(3, "A better one replaces it over the air, while frames are answered")
	second, acc, err := s.version(ctx, "good")
	if err != nil {
		return nil, err
	}
	s.sum.AccuracyV2 = acc
	if s.sum.AccuracyV2 <= s.sum.AccuracyV1 {
		return nil, fmt.Errorf("up: the second model (%.4f) is not better than the first (%.4f)", s.sum.AccuracyV2, s.sum.AccuracyV1)
	}
	if err := s.pause(ctx); err != nil {
		return nil, err
	}
	s.ui.step(4, "A tampered release: somebody took over the broker")
	if err := s.tampered(ctx, first, second); err != nil {
		return nil, err
	}
	if err := s.pause(ctx); err != nil {
		return nil, err
	}
	s.ui.step(5, "A bad release, properly signed: other weights than its golden outputs")
	if err := s.bad(ctx, first, second); err != nil {
		return nil, err
	}
	s.ui.step(6, "Nothing was lost")
	return s.finish(ctx, second)
}

// load reads the pictures and brings those for training through the device's
// own preparation.
func (s *story) load(ctx context.Context) error {
	set, err := dataset.OpenIDXDir(s.opts.Data, "train", dataset.FashionClasses())
	if err != nil {
		return fmt.Errorf("up: training pictures: %w", err)
	}
	if s.test, err = dataset.OpenIDXDir(s.opts.Data, "t10k", dataset.FashionClasses()); err != nil {
		return fmt.Errorf("up: test pictures: %w", err)
	}
	if s.golden, err = cloud.GoldenFrom(ctx, s.test, goldenCount); err != nil {
		return err
	}
	if s.digest, err = set.Digest(ctx); err != nil {
		return err
	}
	b := s.ui.progress("prepare")
	defer b.end()
	s.pictures, err = cloud.Prepare(ctx, s.host(), set, 28, 28, cloud.TrainingRecipe(true), func(done, total int) {
		b.set(done, total, fmt.Sprintf("%d of %d pictures", done, total))
	})
	return err
}

// version trains, evaluates, registers, signs and rolls out one model, and
// waits until the device answers frames with it.
func (s *story) version(ctx context.Context, preset string) (registry.Release, float64, error) {
	spec, err := train.Preset(preset)
	if err != nil {
		return registry.Release{}, 0, err
	}
	spec.Classes, spec.Height, spec.Width, spec.Channels = len(s.test.Classes), 28, 28, 1
	b := s.ui.progress("train")
	art, err := train.Run(ctx, train.Job{
		Spec: spec, Train: s.pictures, Labels: dataset.FashionClasses(), Preprocess: cloud.TrainingRecipe(true), DatasetDigest: s.digest,
		Progress: func(p train.Progress) {
			b.set(p.PicturesSeen, p.PicturesPlanned, fmt.Sprintf("epoch %d/%d  loss %.3f  accuracy %.1f %%  %.0f pictures/s", p.Epoch, p.Epochs, p.Loss, 100*p.Accuracy, p.PicturesPerSec))
		},
	})
	b.end()
	if err != nil {
		return registry.Release{}, 0, err
	}
	report, err := s.evaluate(ctx, art)
	if err != nil {
		return registry.Release{}, 0, err
	}
	m, err := s.fleet.Push(ctx, cloud.PushOptions{
		Name: modelName, Model: art.TFLite, Spec: art.Spec, Dataset: s.digest, Lineage: art.Lineage,
		Metrics: map[string]any{"top1": report.Top1, "macro_f1": report.Macro.F1, "n": report.N}, Host: s.host(),
	})
	if err != nil {
		return registry.Release{}, 0, err
	}
	rel, err := s.fleet.Release(ctx, cloud.ReleaseOptions{Model: m.Ref(), Golden: s.golden, Host: s.host()})
	if err != nil {
		return registry.Release{}, 0, err
	}
	s.ui.say("  registered   %s, %d bytes of int8 model; signed as %s", m.Ref(), len(art.TFLite), rel.Path)
	return rel, report.Top1, s.rollOut(ctx, rel)
}

func (s *story) evaluate(ctx context.Context, art *train.Artifact) (*evaluate.Report, error) {
	b := s.ui.progress("evaluate")
	defer b.end()
	r, err := cloud.EvaluateModel(ctx, s.host(), art.TFLite, &art.Spec, s.test, func(done, total int) {
		b.set(done, total, fmt.Sprintf("%d of %d test pictures in the device's own runtime", done, total))
	})
	if err == nil {
		b.end()
		s.ui.say("  accuracy     %.2f %% on %d test pictures, int8 (95 %%: %.2f to %.2f)", 100*r.Top1, r.N, 100*r.Top1Interval[0], 100*r.Top1Interval[1])
	}
	return r, err
}

// rollOut starts a rollout and follows it until the release is committed and
// answers.
func (s *story) rollOut(ctx context.Context, rel registry.Release) error {
	mark := s.events.mark()
	if _, err := s.fleet.StartRollout(ctx, cloud.RolloutOptions{Release: rel.Path, Frames: probation}); err != nil {
		return err
	}
	e, err := s.events.wait(ctx, mark, updateWithin, "end of the update to "+rel.Path, func(e wire.Event) bool {
		return e.Release == rel.Path && e.Outcome != ""
	})
	if err != nil {
		return err
	}
	if e.Outcome != wire.Committed {
		return fmt.Errorf("up: the device did not take %s: %s (%s): %s", rel.Path, e.Outcome, e.Reason, e.Message)
	}
	if err := s.answers(ctx, rel); err != nil {
		return err
	}
	s.sum.Updates++
	s.ui.say("  device       verified, probed, activated and, after %d frames, committed %s", probation, rel.Path)
	return s.settled(ctx)
}

// settled waits until no rollout is under way.
func (s *story) settled(ctx context.Context) error {
	for end := time.Now().Add(updateWithin); ; {
		all, err := s.fleet.Registry.Rollouts(ctx, "running")
		if err != nil || len(all) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("up: rollout %s does not end", all[0].ID)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// answers waits until frames are answered by a release.
func (s *story) answers(ctx context.Context, rel registry.Release) error {
	var before uint64
	for end := time.Now().Add(updateWithin); ; {
		snap, err := s.device.snapshot(ctx)
		if err == nil && snap.Model.Release == rel.Path && snap.Model.Results > before {
			if before > 0 {
				return nil
			}
			before = snap.Model.Results
		}
		if time.Now().After(end) {
			return fmt.Errorf("up: no frame is answered by %s", rel.Path)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// pause lets a person look before the next step.
func (s *story) pause(ctx context.Context) error {
	if s.opts.Once || !s.opts.TTY || s.opts.In == nil {
		return ctx.Err()
	}
	s.ui.say("  (look at %s; Enter for the next step)", s.device.url())
	line := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(s.opts.In).ReadString('\n')
		line <- err
	}()
	select {
	case err := <-line:
		if err != nil && !strings.Contains(err.Error(), "EOF") {
			return fmt.Errorf("up: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
