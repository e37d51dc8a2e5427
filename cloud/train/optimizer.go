package train

import "math"

// optimizer moves parameters against their gradients. It is used by one
// goroutine.
type optimizer interface {
	// step updates all parameters; grads is parallel to the parameters given
	// at construction.
	step(grads [][]float32, rate float32)
}

func (s Spec) optimizer(params []*Param) optimizer {
	m := make([][]float32, len(params))
	for i, p := range params {
		m[i] = make([]float32, len(p.Value))
	}
	if s.Optimizer == OptimizerSGD {
		return &sgd{params: params, velocity: m, momentum: float32(s.Momentum), decay: float32(s.WeightDecay)}
	}
	v := make([][]float32, len(params))
	for i, p := range params {
		v[i] = make([]float32, len(p.Value))
	}
	return &adam{params: params, m: m, v: v, decay: float32(s.WeightDecay)}
}

// sgd is gradient descent with momentum.
type sgd struct {
	params          []*Param
	velocity        [][]float32
	momentum, decay float32
}

func (o *sgd) step(grads [][]float32, rate float32) {
	for i, p := range o.params {
		keep := float32(1)
		if p.Decay {
			keep -= rate * o.decay
		}
		vel := o.velocity[i]
		for j, g := range grads[i] {
			vel[j] = o.momentum*vel[j] + g
			p.Value[j] = keep*p.Value[j] - rate*vel[j]
		}
	}
}

// adam is Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov
// and Hutter 2019).
type adam struct {
	params []*Param
	m, v   [][]float32
	decay  float32
	steps  int
}

func (o *adam) step(grads [][]float32, rate float32) {
	const beta1, beta2, epsilon = 0.9, 0.999, 1e-8
	o.steps++
	c1 := float32(1 - math.Pow(beta1, float64(o.steps)))
	c2 := float32(1 - math.Pow(beta2, float64(o.steps)))
	for i, p := range o.params {
		keep := float32(1)
		if p.Decay {
			keep -= rate * o.decay
		}
		m, v, w := o.m[i], o.v[i], p.Value
		for j, g := range grads[i] {
			m[j] = beta1*m[j] + (1-beta1)*g
			v[j] = beta2*v[j] + (1-beta2)*g*g
			w[j] = keep*w[j] - rate*(m[j]/c1)/(sqrt32(v[j]/c2)+epsilon)
		}
	}
}
