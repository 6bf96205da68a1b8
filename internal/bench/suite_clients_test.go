package bench

import (
	"errors"
	"os/exec"
	"testing"
)

// TestClients proves that ordinary clients bring as many records as they are asked
// for there and back, and that one that is missing is named.
func TestClients(t *testing.T) {
	for name, c := range map[string]*ordinaryClient{"franz-go": franzClient(), "kcat": kcatClient()} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("kcat"); err != nil && name == "kcat" {
				t.Skip("there is no kcat")
			}
			_, o := fake(t, 1)
			o.Partitions, o.Records, o.Size, o.Topic = 1, 2500, 100, "clients-"+name
			if err := makeTopic(t.Context(), &o); err != nil {
				t.Fatal(err)
			}
			r, err := c.run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := verify(t.Context(), &o, proof{records: 2500}); err != nil {
				t.Error(err)
			}
			for _, step := range []string{clientProduce, clientConsume} {
				if s := r.Step(step); s == nil || s.Bytes != 250_000 || s.ClientCPU <= 0 {
					t.Errorf("%s: %+v", step, s)
				}
			}
		})
	}
	_, o := fake(t, 1)
	if _, err := javaClient().run(t.Context(), o); !errors.Is(err, errNoClient) {
		t.Error("without a KAFKA_HOME:", err)
	}
}
