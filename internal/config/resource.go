package config

// ResourceType is Kafka's number for a kind of things that have configs.
type ResourceType int8

// The resource types.
const (
	Topic         ResourceType = 2
	Broker        ResourceType = 4
	BrokerLogger  ResourceType = 8
	ClientMetrics ResourceType = 16
	Group         ResourceType = 32
)

// String is Kafka's name of the type, as in its messages.
func (t ResourceType) String() string {
	switch t {
	case Topic:
		return "TOPIC"
	case Broker:
		return "BROKER"
	case BrokerLogger:
		return "BROKER_LOGGER"
	case ClientMetrics:
		return "CLIENT_METRICS"
	case Group:
		return "GROUP"
	default:
		return "UNKNOWN"
	}
}

// Resource is a thing for which configs can be set. The name of a broker is its id; "" stands
// for all brokers.
type Resource struct {
	Type ResourceType
	Name string
}
