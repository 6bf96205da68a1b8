import java.io.File;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.HexFormat;
import java.util.Optional;
import java.util.Properties;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.log.*;
import org.apache.kafka.storage.internals.utils.Throttler;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Compacts each log in a directory with Apache Kafka's own cleaner, in the rounds that the log's file "rounds" has
 * ("upper offset, time in ms" on each line), and writes all batches below the last round's upper offset into its file "left".
 * TestAgainstKafka runs it and compares.
 */
public class CleanLogs {
    public static void main(String[] args) throws Exception {
        KafkaScheduler scheduler = new KafkaScheduler(1);
        scheduler.startup();
        for (File dir : new File(args[0]).listFiles(File::isDirectory)) {
            clean(dir, scheduler);
        }
        System.exit(0);
    }

    static void clean(File dir, KafkaScheduler scheduler) throws Exception {
        Properties props = new Properties();
        props.put("cleanup.policy", "compact");
        props.put("delete.retention.ms", "100");
        // The records' timestamps are near 0, and no producer may be expired at the loading.
        Time early = (Time) Proxy.newProxyInstance(Time.class.getClassLoader(), new Class<?>[] {Time.class}, (proxy, method, arguments) ->
            method.getName().equals("milliseconds") ? (Object) 5000L : method.invoke(Time.SYSTEM, arguments));
        UnifiedLog log = UnifiedLog.create(dir, new LogConfig(props), 0, 0, scheduler, new BrokerTopicStats(), early,
            Integer.MAX_VALUE, new ProducerStateManagerConfig(Integer.MAX_VALUE, false), Integer.MAX_VALUE,
            new LogDirFailureChannel(1), false, Optional.empty());
        log.updateHighWatermark(log.logEndOffset());
        Throttler throttler = new Throttler(1e12, 1000, "throttled", "bytes", Time.SYSTEM);
        Cleaner cleaner = new Cleaner(0, new SkimpyOffsetMap(1 << 20), 1 << 16, 1 << 24, 0.9, throttler, Time.SYSTEM, tp -> { });
        long first = 0, upper = 0;
        for (String line : Files.readAllLines(dir.toPath().resolve("rounds"))) {
            String[] round = line.split(" ");
            upper = Long.parseLong(round[0]);
            first = cleaner.doClean(new LogToClean(log, first, upper, false), Long.parseLong(round[1])).getKey();
        }
        StringBuilder out = new StringBuilder();
        for (LogSegment segment : log.logSegments()) {
            for (RecordBatch b : segment.log().batches()) {
                if (b.baseOffset() >= upper) {
                    continue;
                }
                out.append(String.format("%d %d count=%d codec=%d time=%s horizon=%d max=%d producer=%d/%d/%d txn=%b control=%b epoch=%d",
                    b.baseOffset(), b.lastOffset(), b.countOrNull(), b.compressionType().id, b.timestampType(),
                    b.deleteHorizonMs().orElse(-1), b.maxTimestamp(), b.producerId(), b.producerEpoch(), b.baseSequence(),
                    b.isTransactional(), b.isControlBatch(), b.partitionLeaderEpoch()));
                for (Record r : b) {
                    out.append(String.format(" [%d %d %s %s]", r.offset(), r.timestamp(), hex(r.key()), hex(r.value())));
                }
                out.append("\n");
            }
        }
        Files.writeString(dir.toPath().resolve("left"), out.toString(), StandardCharsets.UTF_8);
    }

    static String hex(ByteBuffer b) {
        if (b == null) {
            return "-";
        }
        byte[] bytes = new byte[b.remaining()];
        b.duplicate().get(bytes);
        return "x" + HexFormat.of().formatHex(bytes);
    }
}
