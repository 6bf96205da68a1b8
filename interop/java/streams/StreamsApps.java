import java.time.Duration;
import java.util.Arrays;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;

/**
 * Three applications of Kafka Streams that process each record exactly once. They run until they are killed, and end
 * with status 1 on an error that Streams itself does not overcome.
 */
public final class StreamsApps {
    /** StreamsApps copy|count|join BOOTSTRAP ID STATE_DIR OUTPUT INPUT... [name=value ...] */
    public static void main(String[] args) {
        Properties p = new Properties();
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[1]);
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
        p.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        // Every update of a count is a record: none is left out by a cache.
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        p.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        p.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 6000);
        p.put(StreamsConfig.consumerPrefix("heartbeat.interval.ms"), 500);
        String output = args[4];
        String[] inputs = Arrays.stream(args, 5, args.length).filter(a -> !a.contains("=")).toArray(String[]::new);
        Arrays.stream(args, 5, args.length).filter(a -> a.contains("=")).forEach(a -> p.put(a.split("=")[0], a.split("=")[1]));

        KafkaStreams streams = new KafkaStreams(topology(args[0], inputs, output).build(), p);
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        streams.setUncaughtExceptionHandler(e -> {
            System.out.println("a thread ends:");
            e.printStackTrace(System.out);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        while (streams.state() != KafkaStreams.State.ERROR && streams.state() != KafkaStreams.State.NOT_RUNNING) {
            try {
                Thread.sleep(100);
            } catch (InterruptedException e) {
                break;
            }
        }
        Runtime.getRuntime().halt(1);
    }

    private static StreamsBuilder topology(String app, String[] inputs, String output) {
        StreamsBuilder b = new StreamsBuilder();
        var text = Serdes.String();
        KStream<String, String> input = b.stream(inputs[0], Consumed.with(text, text));
        switch (app) {
            case "copy":
                input.to(output, Produced.with(text, text));
                break;
            case "count":
                input.flatMapValues(line -> Arrays.asList(line.split(" ")))
                    .groupBy((key, word) -> word, Grouped.with(text, text).withName("words"))
                    .count(Materialized.as("counts"))
                    .toStream()
                    .mapValues(n -> Long.toString(n))
                    .to(output, Produced.with(text, text));
                break;
            case "join":
                KStream<String, String> right = b.stream(inputs[1], Consumed.with(text, text));
                input.join(right, (l, r) -> l + "+" + r, JoinWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(10), Duration.ofDays(1)),
                        StreamJoined.with(text, text, text).withName("joined").withStoreName("joined"))
                    .to(output, Produced.with(text, text));
                break;
            default:
                throw new IllegalArgumentException(app);
        }
        return b;
    }
}
