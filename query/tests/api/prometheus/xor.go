// Writes the chunks that Prometheus makes of a few runs of samples: one JSON object a line, with the
// timestamps, the values as the bits of a double in hexadecimal, and the chunk's bytes.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"os"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

type run struct {
	Name  string   `json:"name"`
	T     []int64  `json:"t"`
	V     []string `json:"v"`
	Chunk string   `json:"chunk"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	write := func(name string, t []int64, v []float64) {
		chunk := chunkenc.NewXORChunk()
		app, err := chunk.Appender()
		if err != nil {
			panic(err)
		}
		r := run{Name: name, T: t}
		for i := range t {
			app.Append(0, t[i], v[i])
			r.V = append(r.V, fmt.Sprintf("%016x", math.Float64bits(v[i])))
		}
		r.Chunk = hex.EncodeToString(chunk.Bytes())
		if err := out.Encode(r); err != nil {
			panic(err)
		}
	}
	const now = 1435781451781
	grid := func(n int, step int64) (t []int64) {
		for i := 0; i < n; i++ {
			t = append(t, now+int64(i)*step)
		}
		return
	}
	write("one", []int64{now}, []float64{1.5})
	write("two", []int64{now, now + 15000}, []float64{1.5, 1.5})
	write("before 1970", []int64{-now, -1, 0, 1}, []float64{-1, 0, math.Copysign(0, -1), 1})
	write("extremes", []int64{math.MinInt64, 0, math.MaxInt64}, []float64{math.MaxFloat64, math.SmallestNonzeroFloat64, -math.MaxFloat64})
	var counter, sine []float64
	for i := 0; i < 120; i++ {
		counter = append(counter, float64(i*i))
		sine = append(sine, math.Sin(float64(i)))
	}
	write("counter", grid(120, 15000), counter)
	write("sine", grid(120, 1000), sine)
	nan, inf := math.NaN(), math.Inf(1)
	write("no numbers", grid(7, 15000), []float64{nan, inf, -inf, math.Float64frombits(value.StaleNaN), 1, math.Float64frombits(value.NormalNaN), 0})
	// Every size class of the change of a step, and both edges of each.
	var t []int64
	var v []float64
	at, step := int64(now), int64(1<<40)
	add := func() { t = append(t, at); v = append(v, float64(len(t))) }
	add()
	at += step
	add()
	for _, bits := range []uint{13, 16, 19} {
		for _, edge := range []int64{-1, 0, 1} {
			for _, sign := range []int64{-1, 1} {
				step += sign * (1<<bits + edge)
				at += step
				add()
			}
		}
	}
	write("edges", t, v)
	rng := rand.New(rand.NewSource(1))
	for k := 0; k < 6; k++ {
		var t []int64
		var v []float64
		at, x := int64(now), 0.0
		for i := 0; i < 120; i++ {
			at += 1 + rng.Int63n(int64(1)<<uint(4*k+4))
			switch k % 3 {
			case 0:
				x = math.Float64frombits(rng.Uint64())
			case 1:
				x += float64(rng.Intn(100))
			default:
				x = math.Round(rng.Float64()*1000) / 100
			}
			t, v = append(t, at), append(v, x)
		}
		write(fmt.Sprintf("random %d", k), t, v)
	}
}
