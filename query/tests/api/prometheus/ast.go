// Writes how Prometheus lays out expressions and what tree its API answers: for each line of
// standard input one JSON object with the expression, its layout and its tree, or its error.
package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql/parser"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

type line struct {
	Q      string          `json:"q"`
	Err    string          `json:"err,omitempty"`
	Format string          `json:"format,omitempty"`
	Tree   json.RawMessage `json:"tree,omitempty"`
}

func main() {
	p := parser.NewParser(parser.Options{
		EnableExperimentalFunctions:  true,
		ExperimentalDurationExpr:     true,
		EnableExtendedRangeSelectors: true,
		EnableBinopFillModifiers:     true,
	})
	api := v1.NewAPI(nil, nil, nil, nil, nil, nil, nil, nil,
		func() config.Config { return config.Config{} }, nil, v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		nil, "", false, false, 0, promslog.NewNopLogger(), nil, 0, 1, 1, false,
		regexp.MustCompile("^(?:.*)$"), nil, nil, nil, nil,
		prometheus.NewRegistry(), nil, nil, false, nil, false, false, false, false,
		5*time.Minute, false, false, nil, nil, v1.OpenAPIOptions{}, p)
	router := route.New()
	api.Register(router)
	ask := func(path, q string) (data json.RawMessage, message string) {
		req := httptest.NewRequest("GET", path+"?query="+url.QueryEscape(q), nil)
		rec := httptest.NewRecorder()
		router.ServeHTTP(rec, req)
		var answer struct {
			Data  json.RawMessage
			Error string
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			panic(rec.Body.String())
		}
		return answer.Data, answer.Error
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		l := line{Q: in.Text()}
		var layout json.RawMessage
		layout, l.Err = ask("/format_query", l.Q)
		if l.Err == "" {
			if err := json.Unmarshal(layout, &l.Format); err != nil {
				panic(err)
			}
			l.Tree, _ = ask("/parse_query", l.Q)
		}
		if err := out.Encode(l); err != nil {
			panic(err)
		}
	}
}
