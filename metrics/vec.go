package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "reconciler"

// Vec1 is a metric with one label, whose values have a type of their own.
type Vec1[M any, A ~string] struct{ with func(...string) M }

// With returns the metric for one value of the label.
func (v Vec1[M, A]) With(a A) M { return v.with(string(a)) }

// Vec2 is a metric with two labels, whose values have types of their own.
type Vec2[M any, A, B ~string] struct{ with func(...string) M }

// With returns the metric for one value of each label.
func (v Vec2[M, A, B]) With(a A, b B) M { return v.with(string(a), string(b)) }

// factory makes metrics and registers them.
type factory struct{ reg prometheus.Registerer }

func (f factory) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	f.reg.MustRegister(g)
	return g
}

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	f.reg.MustRegister(c)
	return c
}

func (f factory) histogram(name, help string, buckets []float64) prometheus.Observer {
	h := prometheus.NewHistogram(histogramOpts(name, help, buckets))
	f.reg.MustRegister(h)
	return h
}

// histogramOpts gives both kinds of buckets: the classic ones for every server, and native ones, a tenth wide each, for a
// server that asks for them. The limits keep what one series may cost; a series at the limit begins anew at most once an hour.
func histogramOpts(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}
}

func (f factory) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.reg.MustRegister(v)
	return v
}

func (f factory) histogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(histogramOpts(name, help, buckets), labels)
	f.reg.MustRegister(v)
	return v
}

// The functions below make a vector and, for the values that are given, its members with 0.

func counter1[A ~string](f factory, name, help, label string, values []A) Vec1[prometheus.Counter, A] {
	return fill1(Vec1[prometheus.Counter, A]{f.counterVec(name, help, label).WithLabelValues}, values)
}

func counter2[A, B ~string](f factory, name, help, a string, as []A, b string, bs []B) Vec2[prometheus.Counter, A, B] {
	v := Vec2[prometheus.Counter, A, B]{f.counterVec(name, help, a, b).WithLabelValues}
	for _, x := range as {
		for _, y := range bs {
			v.With(x, y)
		}
	}
	return v
}

func gauge1[A ~string](f factory, name, help, label string, values []A) Vec1[prometheus.Gauge, A] {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
	f.reg.MustRegister(v)
	return fill1(Vec1[prometheus.Gauge, A]{v.WithLabelValues}, values)
}

func histogram1[A ~string](f factory, name, help string, buckets []float64, label string, values []A) Vec1[prometheus.Observer, A] {
	return fill1(Vec1[prometheus.Observer, A]{f.histogramVec(name, help, buckets, label).WithLabelValues}, values)
}

func histogram2[A, B ~string](f factory, name, help string, buckets []float64, a, b string) Vec2[prometheus.Observer, A, B] {
	return Vec2[prometheus.Observer, A, B]{f.histogramVec(name, help, buckets, a, b).WithLabelValues}
}

func fill1[M any, A ~string](v Vec1[M, A], values []A) Vec1[M, A] {
	for _, x := range values {
		v.With(x)
	}
	return v
}
