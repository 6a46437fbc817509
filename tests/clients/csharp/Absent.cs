// What the generated code names of Polly and JsonSubTypes, which no Debian package has. It uses Polly for calls that are to be
// repeated, which nobody asks for here, and nothing of JsonSubTypes.
namespace JsonSubTypes
{
    internal static class Absent { }
}

namespace Polly
{
    using System;
    using System.Threading.Tasks;

    public enum OutcomeType { Successful, Failure }

    public sealed class PolicyResult<T>
    {
        public OutcomeType Outcome { get; set; }
        public T Result { get; set; }
        public Exception FinalException { get; set; }
    }

    public interface ISyncPolicy<T> { }

    public interface IAsyncPolicy<T>
    {
        Task<PolicyResult<T>> ExecuteAndCaptureAsync(Func<Task<T>> action);
    }
}
