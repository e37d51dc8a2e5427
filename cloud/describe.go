package cloud

import (
	"context"
	"errors"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/infer/modelfile"
)

// Describe is DescribeModel for a model that came from somewhere. When its
// description lacks something, the runtime is asked first whether it takes the
// model at all: a person who is told to bring other labels for a model that
// will then be refused was sent the wrong way. The refusal is a *host.Refusal.
func Describe(ctx context.Context, o host.Options, model []byte, h SpecHints) (infer.Spec, error) {
	spec, err := DescribeModel(model, h)
	if err == nil || unreadable(err) {
		return spec, err
	}
	child, startErr := host.Start(ctx, o)
	if startErr != nil {
		return spec, err
	}
	_, loadErr := child.Load(ctx, model, nil, protocol.Runtime{Delegate: protocol.Builtin, Threads: 1})
	if closeErr := child.Close(); closeErr != nil {
		return spec, closeErr
	}
	if refusal := (*host.Refusal)(nil); errors.As(loadErr, &refusal) {
		return spec, refusal
	}
	if death := (*host.Death)(nil); errors.As(loadErr, &death) {
		return spec, death
	}
	return spec, err
}

// unreadable says that bytes are no model: no runtime needs to see them.
func unreadable(err error) bool {
	for _, kind := range []error{modelfile.ErrNotModel, modelfile.ErrTruncated, modelfile.ErrCorrupt, modelfile.ErrLimit} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
