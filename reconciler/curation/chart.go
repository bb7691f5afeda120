package curation

import (
	"fmt"
	"strings"
	"time"
)

// The size of a chart in its own units; the page scales it.
const (
	chartWidth  = 600.0
	chartHeight = 120.0
)

// chart is a small drawing, ready for an SVG: bars or lines, and what they say in words.
type chart struct {
	Title, Unit string
	Bars        []bar
	Lines       []string // points of polylines; a gap in time begins a new one
	Max, Last   float64
	Total       float64
	Empty       bool
}

type bar struct{ X, Y, Width, Height float64 }

// barChart draws one bar a step, the newest at the right.
func barChart(title string, values []float64) chart {
	c := chart{Title: title, Empty: true}
	for _, v := range values {
		c.Max, c.Total = max(c.Max, v), c.Total+v
	}
	width := chartWidth / float64(len(values))
	for i, v := range values {
		if v > 0 {
			c.Empty = false
			height := chartHeight * v / c.Max
			c.Bars = append(c.Bars, bar{X: width * float64(i), Y: chartHeight - height, Width: width * 0.8, Height: height})
		}
	}
	return c
}

// lineChart draws samples over the time that charts go back. Where some are missing
// there is a gap.
func lineChart(title, unit string, samples []sample, now time.Time) chart {
	c := chart{Title: title, Unit: unit, Empty: len(samples) < 2}
	for _, s := range samples {
		c.Max, c.Last = max(c.Max, s.value), s.value
	}
	var points []string
	flush := func() {
		if len(points) > 1 {
			c.Lines = append(c.Lines, strings.Join(points, " "))
		}
		points = nil
	}
	for i, s := range samples {
		if i > 0 && s.at.Sub(samples[i-1].at) > 3*sampleEvery {
			flush()
		}
		x := chartWidth * (1 - now.Sub(s.at).Seconds()/chartFor.Seconds())
		y := chartHeight - 2
		if c.Max > 0 {
			y -= (chartHeight - 4) * s.value / c.Max
		}
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
	}
	flush()
	return c
}
