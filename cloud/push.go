package cloud

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
)

// PushOptions describe a model that enters the registry.
type PushOptions struct {
	Name    string
	Model   []byte
	Spec    infer.Spec
	Dataset string // digest of the set it was trained on, if known
	Lineage any    // JSON object, may be nil
	Metrics any    // JSON object, may be nil
	Parents []string
	Host    host.Options // the runtime that must accept it
}

// Push registers a model as the next version of its name. It is run once in
// the device's own runtime before: what that refuses is not registered
// (*host.Refusal).
func (f *Fleet) Push(ctx context.Context, o PushOptions) (registry.Model, error) {
	if err := o.Spec.Check(); err != nil {
		return registry.Model{}, err
	}
	if err := Try(ctx, o.Host, o.Model, &o.Spec); err != nil {
		return registry.Model{}, fmt.Errorf("cloud: push %s: %w", o.Name, err)
	}
	lineage, err := object(o.Lineage)
	if err != nil {
		return registry.Model{}, err
	}
	metrics, err := object(o.Metrics)
	if err != nil {
		return registry.Model{}, err
	}
	blob, err := f.Registry.PutBytes(ctx, o.Model)
	if err != nil {
		return registry.Model{}, err
	}
	return f.Registry.AddModel(ctx, registry.Model{
		Name: o.Name, TFLite: blob.Digest, Spec: o.Spec, Dataset: o.Dataset, Lineage: lineage, Metrics: metrics, Parents: o.Parents,
	})
}

// Try loads a model in a child and runs it once.
func Try(ctx context.Context, o host.Options, model []byte, spec *infer.Spec) error {
	child, err := host.Start(ctx, o)
	if err != nil {
		return err
	}
	defer child.Close()
	_, err = child.Load(ctx, model, spec, protocol.Runtime{Delegate: protocol.Builtin, Threads: 1})
	return err
}

func object(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("cloud: push: %w", err)
	}
	return b, nil
}
