package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
)

type Series struct {
	Labels map[string]string `json:"l"`
	T      []int64           `json:"t"`
	V      []string          `json:"v"`
}
type Query struct {
	Q     string `json:"q"`
	Start int64  `json:"start"`
	End   int64  `json:"end"`
	Step  int64  `json:"step"`
}
type OutSeries struct {
	L map[string]string `json:"l"`
	T []int64           `json:"t"`
	V []string          `json:"v"`
}
type Out struct {
	Q     string      `json:"q"`
	Type  string      `json:"type"`
	Err   string      `json:"err,omitempty"`
	S     []OutSeries `json:"s"`
	Warn  []string    `json:"warn"`
	Info  []string    `json:"info"`
	Str   string      `json:"str,omitempty"`
}

func ff(f float64) string { return fmt.Sprintf("%016x", math.Float64bits(f)) }

func main() {
	delayed := os.Args[3] == "delayed"
	dir, _ := os.MkdirTemp("", "oracle")
	defer os.RemoveAll(dir)
	opts := tsdb.DefaultOptions()
	opts.MinBlockDuration = int64(24 * time.Hour / time.Millisecond)
	opts.MaxBlockDuration = int64(24 * time.Hour / time.Millisecond)
	opts.RetentionDuration = 0
	opts.OutOfOrderTimeWindow = 1 << 40
	db, err := tsdb.Open(dir, promslog.NewNopLogger(), nil, opts, tsdb.NewDBStats())
	if err != nil { panic(err) }
	f, err := os.Open(os.Args[1])
	if err != nil { panic(err) }
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 1<<20), 1<<28)
	app := db.Appender(context.Background())
	for sc.Scan() {
		var s Series
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil { panic(err) }
		ls := labels.FromMap(s.Labels)
		for i := range s.T {
			var bits uint64
			fmt.Sscanf(s.V[i], "%x", &bits)
			if _, err := app.Append(0, ls, s.T[i], math.Float64frombits(bits)); err != nil { panic(err) }
		}
	}
	if err := app.Commit(); err != nil { panic(err) }
	popts := parser.Options{EnableExperimentalFunctions: true, ExperimentalDurationExpr: true, EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true}
	eng := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50000000, Timeout: 100 * time.Second,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60000 },
		EnableAtModifier: true, EnableNegativeOffset: true, EnableDelayedNameRemoval: delayed,
		Parser: parser.NewParser(popts),
	})
	qf, err := os.Open(os.Args[2])
	if err != nil { panic(err) }
	qs := bufio.NewScanner(qf)
	qs.Buffer(make([]byte, 1<<20), 1<<28)
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	enc := json.NewEncoder(w)
	for qs.Scan() {
		var q Query
		if err := json.Unmarshal(qs.Bytes(), &q); err != nil { panic(err) }
		out := Out{Q: q.Q}
		var qry promql.Query
		if q.Step == 0 {
			qry, err = eng.NewInstantQuery(context.Background(), db, nil, q.Q, time.UnixMilli(q.Start))
		} else {
			qry, err = eng.NewRangeQuery(context.Background(), db, nil, q.Q, time.UnixMilli(q.Start), time.UnixMilli(q.End), time.Duration(q.Step)*time.Millisecond)
		}
		if err != nil {
			out.Type = "parse"
			out.Err = err.Error()
			enc.Encode(out)
			continue
		}
		res := qry.Exec(context.Background())
		if res.Err != nil {
			out.Type = "exec"
			out.Err = res.Err.Error()
			enc.Encode(out)
			continue
		}
		warn, info := res.Warnings.AsStrings(q.Q, 10, 10)
		out.Warn, out.Info = warn, info
		switch v := res.Value.(type) {
		case promql.Scalar:
			out.Type = "scalar"
			out.S = append(out.S, OutSeries{T: []int64{v.T}, V: []string{ff(v.V)}})
		case promql.String:
			out.Type = "string"
			out.Str = v.V
		case promql.Vector:
			out.Type = "vector"
			for _, s := range v {
				out.S = append(out.S, OutSeries{L: s.Metric.Map(), T: []int64{s.T}, V: []string{ff(s.F)}})
			}
		case promql.Matrix:
			out.Type = "matrix"
			for _, s := range v {
				o := OutSeries{L: s.Metric.Map()}
				for _, p := range s.Floats {
					o.T = append(o.T, p.T)
					o.V = append(o.V, ff(p.F))
				}
				out.S = append(out.S, o)
			}
		}
		enc.Encode(out)
		qry.Close()
	}
}
