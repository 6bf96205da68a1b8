import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Exit;

/** Drives kafka-clients, and runs Apache Kafka's tools in this JVM: starting one for each costs a second. */
public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static KafkaConsumer<byte[], byte[]> member;
    private static final Map<TopicPartition, OffsetAndMetadata> given = new HashMap<>();

    /** Where System.out leads: tools keep the stream that they saw first, so it never changes, only its target. */
    private static final class Switch extends OutputStream {
        volatile OutputStream target;

        @Override
        public void write(int b) throws java.io.IOException {
            target.write(b);
        }

        @Override
        public void write(byte[] b, int off, int len) throws java.io.IOException {
            target.write(b, off, len);
        }

        @Override
        public void flush() throws java.io.IOException {
            target.flush();
        }
    }

    /** Thrown in place of ending the process, so that a tool closes what it opened. */
    private static final class Ended extends Error {
    }

    /** The running tool's exit status, null until it ends itself. */
    private static volatile Integer exitStatus;

    /** What the running tool wants done when it ends. */
    private static final List<Runnable> HOOKS = new ArrayList<>();

    private static void end(int status) {
        if (exitStatus == null) {
            exitStatus = status;
            // Some tools catch whatever is thrown, print it and end again.
            System.out.flush();
            System.err.flush();
            OUT.target = OutputStream.nullOutputStream();
            ERR.target = OutputStream.nullOutputStream();
        }
        throw new Ended();
    }

    private static final Switch OUT = new Switch();
    private static final Switch ERR = new Switch();

    public static void main(String[] args) throws Exception {
        PrintStream replies = System.out;
        PrintStream noise = System.err;
        OUT.target = noise;
        ERR.target = noise;
        System.setOut(new PrintStream(OUT, true));
        System.setErr(new PrintStream(ERR, true));
        Exit.setExitProcedure((status, message) -> end(status));
        // A producer's last records leave in its hook.
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        Exit.setHaltProcedure((status, message) -> end(status));
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ObjectNode reply;
            try {
                reply = answer(JSON.readTree(line));
                reply.put("ok", true);
            } catch (Exception e) {
                Throwable cause = e;
                while (cause.getCause() != null && Errors.forException(cause) == Errors.UNKNOWN_SERVER_ERROR) {
                    cause = cause.getCause();
                }
                reply = JSON.createObjectNode().put("ok", false).put("error", cause.toString()).put("code", Errors.forException(cause).code());
            }
            replies.println("@leat " + JSON.writeValueAsString(reply));
            replies.flush();
        }
        noise.flush();
        Runtime.getRuntime().halt(0); // a member must not leave its group politely, nor tools' hooks run
    }

    private static ObjectNode answer(JsonNode q) throws Exception {
        switch (q.get("op").asText()) {
            case "create": return create(q);
            case "describe": return describe(q);
            case "produce": return produce(q);
            case "consume": return consume(q);
            case "time": return time(q);
            case "join": return join(q);
            case "poll": return poll(q);
            case "commit": return commit(q);
            case "tool": return tool(q);
            default: throw new IllegalArgumentException("this driver has no " + q.get("op"));
        }
    }

    private static Map<String, Object> config(JsonNode q, Object... more) {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", q.get("addr").asText());
        for (int i = 0; i < more.length; i += 2) {
            c.put((String) more[i], more[i + 1]);
        }
        return c;
    }

    private static ObjectNode create(JsonNode q) throws Exception {
        Map<String, String> configs = new HashMap<>();
        if (q.has("configs")) {
            q.get("configs").fields().forEachRemaining(f -> configs.put(f.getKey(), f.getValue().asText()));
        }
        Optional<Short> replication = q.has("replication") ? Optional.of((short) q.get("replication").asInt()) : Optional.empty();
        Optional<Integer> partitions = q.has("partitions") ? Optional.of(q.get("partitions").asInt()) : Optional.empty();
        try (Admin admin = Admin.create(config(q))) {
            NewTopic topic = new NewTopic(q.get("topic").asText(), partitions, replication).configs(configs);
            admin.createTopics(List.of(topic)).all().get();
        }
        return JSON.createObjectNode();
    }

    private static ObjectNode describe(JsonNode q) throws Exception {
        String topic = q.get("topic").asText();
        try (Admin admin = Admin.create(config(q))) {
            TopicDescription d = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            long leaders = d.partitions().stream().filter(p -> p.leader() != null).count();
            return JSON.createObjectNode().put("partitions", d.partitions().size()).put("leaders", leaders);
        }
    }

    private static ObjectNode produce(JsonNode q) throws Exception {
        Map<String, Object> c = config(q, "acks", q.get("acks").asText(), "enable.idempotence", q.get("idempotent").asBoolean(),
            "compression.type", q.get("codec").asText(), "key.serializer", ByteArraySerializer.class, "value.serializer", ByteArraySerializer.class,
            "linger.ms", 20, "max.block.ms", 5000, "delivery.timeout.ms", 60000);
        ArrayNode offsets = JSON.createArrayNode();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(c);
             BufferedReader lines = Files.newBufferedReader(Path.of(q.get("file").asText()))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode r = JSON.readTree(line);
                Long ts = r.has("ts") ? r.get("ts").asLong() : null;
                var record = new ProducerRecord<>(q.get("topic").asText(), q.get("partition").asInt(), ts, bytes(r.get("k")), bytes(r.get("v")));
                if (r.hasNonNull("h")) {
                    for (JsonNode h : r.get("h")) {
                        record.headers().add(h.get("n").asText(), bytes(h.get("v")));
                    }
                }
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> f : sent) {
                offsets.add(f.get().offset());
            }
        }
        ObjectNode reply = JSON.createObjectNode();
        reply.set("offsets", offsets);
        return reply;
    }

    private static ObjectNode consume(JsonNode q) throws Exception {
        TopicPartition tp = new TopicPartition(q.get("topic").asText(), q.get("partition").asInt());
        int want = q.get("count").asInt();
        int got = 0;
        long until = System.nanoTime() + q.get("wait_ms").asLong() * 1_000_000;
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(q); BufferedWriter out = Files.newBufferedWriter(Path.of(q.get("file").asText()))) {
            consumer.assign(List.of(tp));
            consumer.seek(tp, q.get("offset").asLong());
            while (got < want && System.nanoTime() < until) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    ObjectNode line = JSON.createObjectNode().put("o", r.offset()).put("ts", r.timestamp());
                    line.put("k", r.key()).put("v", r.value());
                    ArrayNode headers = line.putArray("h");
                    for (Header h : r.headers()) {
                        headers.addObject().put("n", h.key()).put("v", h.value());
                    }
                    out.write(JSON.writeValueAsString(line));
                    out.newLine();
                    got++;
                }
            }
        }
        return JSON.createObjectNode().put("count", got);
    }

    private static ObjectNode time(JsonNode q) {
        TopicPartition tp = new TopicPartition(q.get("topic").asText(), q.get("partition").asInt());
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(q)) {
            OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(tp, q.get("ts").asLong())).get(tp);
            return JSON.createObjectNode().put("offset", found == null ? -1 : found.offset());
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(JsonNode q, Object... more) {
        Map<String, Object> c = config(q, more);
        c.put("key.deserializer", ByteArrayDeserializer.class);
        c.put("value.deserializer", ByteArrayDeserializer.class);
        c.put("enable.auto.commit", false);
        c.put("auto.offset.reset", "earliest");
        c.put("allow.auto.create.topics", false);
        return new KafkaConsumer<>(c);
    }

    private static ObjectNode join(JsonNode q) {
        member = consumer(q, "group.id", q.get("group").asText(), "session.timeout.ms", q.get("session_ms").asInt(), "heartbeat.interval.ms", 500);
        member.subscribe(List.of(q.get("topic").asText()));
        return JSON.createObjectNode();
    }

    private static ObjectNode poll(JsonNode q) {
        ObjectNode reply = JSON.createObjectNode();
        ArrayNode records = reply.putArray("records");
        for (ConsumerRecord<byte[], byte[]> r : member.poll(Duration.ofMillis(q.get("wait_ms").asLong()))) {
            records.addObject().put("p", r.partition()).put("o", r.offset()).put("v", new String(r.value(), StandardCharsets.UTF_8));
            given.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
        }
        return reply;
    }

    private static ObjectNode commit(JsonNode q) {
        TopicPartition tp = new TopicPartition(q.get("topic").asText(), q.get("partition").asInt());
        OffsetAndMetadata next = given.get(tp);
        member.commitSync(Map.of(tp, next));
        return JSON.createObjectNode().put("offset", next.offset());
    }

    /** Runs a tool's main with its input, and returns what it printed and its exit status. */
    private static ObjectNode tool(JsonNode q) throws Exception {
        List<String> args = new ArrayList<>();
        if (q.has("args")) {
            q.get("args").forEach(a -> args.add(a.asText()));
        }
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        var input = System.in;
        System.setIn(new ByteArrayInputStream(q.path("input").asText("").getBytes(StandardCharsets.UTF_8)));
        OutputStream noise = OUT.target;
        OUT.target = printed;
        ERR.target = printed;
        exitStatus = null;
        int status = 0;
        try {
            Class.forName(q.get("class").asText()).getMethod("main", String[].class).invoke(null, (Object) args.toArray(new String[0]));
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof Ended)) {
                e.getCause().printStackTrace();
                status = 1;
            }
        }
        if (exitStatus != null) {
            status = exitStatus;
        }
        HOOKS.forEach(Runnable::run);
        HOOKS.clear();
        System.out.flush();
        System.err.flush();
        OUT.target = noise;
        ERR.target = noise;
        System.setIn(input);
        return JSON.createObjectNode().put("output", printed.toString(StandardCharsets.UTF_8)).put("exit", status);
    }

    private static byte[] bytes(JsonNode n) throws java.io.IOException {
        return n == null || n.isNull() ? null : n.binaryValue();
    }
}
